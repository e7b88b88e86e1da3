"""The order of the lab's build: what depends on what, and what runs beside what."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lab import (
    archives,
    debian,
    extensions,
    golang,
    imagesets,
    initramfs,
    keyless,
    oci,
    overlay,
    registryimage,
    rootfs,
    settingsfiles,
    sid,
    signing,
)
from lab.console import say, stop_programs
from lab.imagesets import ImageSet, VersionParts
from lab.oci import REF_NAME, Layout
from lab.place import ARCHITECTURES, NAME_PREFIX, REALISTIC_PREFIX, Place, parse_version
from lab.rootfs import layer_facts, layer_from_facts
from lab.signing import Signable
from lab.steps import (
    Facts,
    StepResult,
    do_step,
    key_of,
    recipe_digest,
    remove_tree,
    replace_folder,
    require_free_space,
)

NEEDED_GIB = 8.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Results of the steps that every version shares."""

    sid: StepResult
    boot: StepResult
    registry: StepResult


def build_lab(place: Place, versions: Sequence[str]) -> bool:
    """Build what is missing of the lab for these versions; return whether anything was made.

    Three lanes run side by side: Debian's root file system, downloads of Go modules, compilers.
    """
    versions = sorted(set(versions), key=parse_version)
    if _is_complete(place, versions):
        return False
    debian.need_packages(["build"])
    golang.need_go()
    require_free_space(place, NEEDED_GIB)
    with ThreadPoolExecutor(6) as lanes:
        registry = lanes.submit(_registry, place)
        shared = lanes.submit(_shared_parts, place, registry)
        prepared = {version: Future[StepResult]() for version in versions}
        fetching = lanes.submit(_prepare_all, place, prepared)
        compiled = lanes.submit(_compile_all, place, prepared)
        tools = lanes.submit(_tools, place)
        signer = lanes.submit(_keyless_signer, place, tools)
        _await_all([registry, shared, fetching, compiled, tools, signer])
    parts, programs, used_tools = shared.result(), compiled.result(), tools.result()
    layers = {version: _version_parts(place, parts, programs[version]) for version in versions}
    _upstream(place, versions, parts, layers, programs, used_tools, signer.result())
    return True


def _await_all(lanes: Sequence["Future[Any]"]) -> None:
    """Wait for all lanes; when one fails or the user stops us, stop the others and raise."""
    try:
        for lane in as_completed(lanes):
            lane.result()
    except BaseException:
        stop_programs()
        raise


def lab_key(versions: Sequence[str]) -> str:
    """Key over all recipes and the versions: same key and results there, nothing to do."""
    recipes = (
        archives, debian, extensions, golang, imagesets, initramfs, keyless, oci, overlay,
        registryimage, rootfs, settingsfiles, sid, signing,
    )  # fmt: skip
    return key_of(
        {
            "recipes": recipe_digest(*recipes),
            "keyless": keyless.source_digest(),
            "versions": list(versions),
        }
    )


def _is_complete(place: Place, versions: Sequence[str]) -> bool:
    try:
        record = json.loads(place.record.read_text(encoding="utf-8"))
        layout = Layout.open(place.upstream)
    except (OSError, ValueError):
        return False
    return record.get("key") == lab_key(versions) and not damaged_blobs(layout)


def damaged_blobs(layout: Layout) -> list[str]:
    """Return digests of blobs that are missing or have another size than what names them says."""
    wrong = []
    for entry in layout.entries:
        try:
            for manifest in layout.manifests_below(entry):
                for blob in (manifest, *layout.blobs_of(manifest)):
                    if layout.blob_path(blob["digest"]).stat().st_size != blob["size"]:
                        wrong.append(blob["digest"])
        except (OSError, ValueError, KeyError):
            wrong.append(entry["digest"])
    return wrong


def _registry(place: Place) -> StepResult:
    return do_step(
        place,
        "registry",
        "Debian's docker-registry, and a container image of it",
        {"recipe": recipe_digest(registryimage, archives)},
        registryimage.make_registry,
    )


def _shared_parts(place: Place, registry: "Future[StepResult]") -> Parts:
    root = do_step(
        place,
        "sid",
        "Debian sid root file system (debootstrap, about 500 MB)",
        {"recipe": recipe_digest(rootfs, sid), "packages": rootfs.IMAGER_PACKAGES},
        rootfs.make_rootfs,
    )
    boot = do_step(
        place,
        "boot",
        "kernels, EFI programs and busybox of both architectures",
        {"recipe": recipe_digest(rootfs), "sid": root.content},
        lambda folder: rootfs.make_boot_assets(root.folder / "root", folder),
    )
    return Parts(root, boot, registry.result())


def _prepare_all(place: Place, prepared: dict[str, "Future[StepResult]"]) -> None:
    waiting = list(prepared.values())
    for version, future in prepared.items():
        waiting.remove(future)
        try:
            future.set_result(
                do_step(
                    place,
                    f"module-{version}",
                    f"Go modules of the imager {version}",
                    {"recipe": recipe_digest(golang), "version": version},
                    partial(_prepare, version),
                )
            )
        except BaseException as problem:
            for unmet in (future, *waiting):
                unmet.set_exception(problem)
            raise


def _prepare(version: str, folder: Path) -> Facts:
    golang.prepare_imager(version, folder)
    digests = {name: rootfs.file_digest(folder / name) for name in ("go.mod", "go.sum")}
    return {"version": version, **digests}


def _compile_all(place: Place, prepared: dict[str, "Future[StepResult]"]) -> dict[str, StepResult]:
    programs = {}
    for version, future in prepared.items():
        module = future.result()

        def work(folder: Path, module: StepResult = module, version: str = version) -> Facts:
            binary = folder / "imager"
            facts: Facts = golang.compile_imager(version, module.folder, binary)
            layer = imagesets.program_layer(folder / "layer.tar.gz", binary)
            return {**facts, "layer": layer_facts(layer)}

        programs[version] = do_step(
            place,
            f"imager-{version}",
            f"compiling the imager {version}",
            {"recipe": recipe_digest(golang, imagesets, archives), "module": module.content},
            work,
        )
    return programs


def _tools(place: Place) -> Facts:
    used: Facts = {}
    for name, (_, version) in golang.TOOLS.items():

        def work(folder: Path, name: str = name) -> Facts:
            return golang.install_tool(name, folder)

        result = do_step(
            place, f"tool-{name}", f"building {name} {version}", {"tool": [name, version]}, work
        )
        target = place.bin / name
        if result.fresh or not target.exists():
            target.unlink(missing_ok=True)
            os.link(result.folder / name, target)
        used[name] = result.facts
    return used


def _keyless_signer(place: Place, tools: "Future[Facts]") -> StepResult:
    tools.result()  # cosign is made of the same modules: what it compiled is not compiled again
    return keyless.compile_signer(place)


def _version_parts(place: Place, parts: Parts, program: StepResult) -> VersionParts:
    version = program.facts["talos"]
    boot = parts.boot

    def work(folder: Path) -> Facts:
        files = {}
        for arch in ARCHITECTURES:
            files[arch] = folder / f"initramfs-{arch}.xz"
            modules = boot.facts["modules"][arch]
            raw = initramfs.make_initramfs(boot.folder, arch, version, modules)
            files[arch].write_bytes(initramfs.padded(raw, arch, initramfs.SMALL_SIZE_BYTES))
        whole = imagesets.initramfs_layer(folder / "both.tar.gz", files)
        single = {
            arch: imagesets.initramfs_layer(folder / f"{arch}.tar.gz", {arch: path})
            for arch, path in files.items()
        }
        binaries = imagesets.installer_layers(
            folder, program.folder / "imager", boot.folder / "arm64-busybox"
        )
        return {
            "both": layer_facts(whole),
            "single": {arch: layer_facts(layer) for arch, layer in single.items()},
            "installer": {arch: layer_facts(layer) for arch, layer in binaries.items()},
        }

    made = do_step(
        place,
        f"layers-{version}",
        f"initramfs and layers of {version}",
        {
            "recipe": recipe_digest(initramfs, imagesets, archives),
            "boot": boot.content,
            "imager": program.content,
        },
        work,
    )
    return VersionParts(
        version,
        rootfs=layer_from_facts(parts.sid.folder, parts.sid.facts["layer"]),
        boot=layer_from_facts(boot.folder, boot.facts["layer"]),
        imager_program=layer_from_facts(program.folder, program.facts["layer"]),
        installer_program=_layers(made, "installer"),
        initramfs=layer_from_facts(made.folder, made.facts["both"]),
        initramfs_of=_layers(made, "single"),
    )


def _layers(made: StepResult, name: str) -> dict[str, archives.Layer]:
    return {arch: layer_from_facts(made.folder, f) for arch, f in made.facts[name].items()}


def _realistic_parts(place: Place, small: VersionParts) -> VersionParts:
    source = place.steps / f"layers-{small.version}"

    def work(folder: Path) -> Facts:
        files = {}
        for arch in ARCHITECTURES:
            files[arch] = folder / f"initramfs-{arch}.xz"
            raw = (source / f"initramfs-{arch}.xz").read_bytes()
            files[arch].write_bytes(initramfs.padded(raw, arch, initramfs.REALISTIC_SIZE_BYTES))
        whole = imagesets.initramfs_layer(folder / "both.tar.gz", files)
        for path in files.values():
            path.unlink()
        return {"both": layer_facts(whole)}

    made = do_step(
        place,
        f"realistic-{small.version}",
        "initramfs of realistic size (90 MB)",
        {"recipe": recipe_digest(initramfs, archives), "small": small.initramfs.digest},
        work,
    )
    return VersionParts(
        small.version,
        rootfs=small.rootfs,
        boot=small.boot,
        imager_program=small.imager_program,
        installer_program=small.installer_program,
        initramfs=layer_from_facts(made.folder, made.facts["both"]),
        initramfs_of=small.initramfs_of,
    )


def _upstream(
    place: Place,
    versions: Sequence[str],
    parts: Parts,
    layers: dict[str, VersionParts],
    programs: dict[str, StepResult],
    tools: Facts,
    signer: StepResult,
) -> None:
    """Put all images together, sign them, and publish layout, settings and record."""
    began_s = time.monotonic()
    say("putting the images together …")
    staging, work = place.root / ".upstream.staging", place.root / ".upstream.work"
    remove_tree(staging)
    remove_tree(work)
    work.mkdir()
    layout = Layout.create(staging)
    signables: list[Signable] = []
    newest = versions[-1]
    for version in versions:
        ImageSet(layout, NAME_PREFIX, layers[version], work).put_all()
        signables += _new_signables(layout, signables, version)
    heavy = _realistic_parts(place, layers[newest])
    ImageSet(layout, REALISTIC_PREFIX, heavy, work).put_all()
    signables += _new_signables(layout, signables, newest)
    twice = [layers[version] for version in keyless.keyless_versions(versions)]
    keyless_signables = keyless.put_images(layout, twice, work / "keyless")
    images = {name: entry["digest"] for name, entry in layout.named().items()}
    signing.sign_images(place, layout, signables, parts.registry.folder / "unpacked", work)
    trusted_root = keyless.sign_images(place, signer, layout, keyless_signables)
    layout.save()
    replace_folder(staging, place.upstream)
    settingsfiles.write_settings(place, trusted_root)
    shutil.copyfile(parts.registry.folder / "registry-image.tar", place.root / "registry-image.tar")
    record: dict[str, Any] = {
        "key": lab_key(versions),
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": list(versions),
        "realistic_version": newest,
        "images": images,
        "rootfs_packages": parts.sid.facts["packages"],
        "boot_packages": parts.boot.facts["packages"],
        "registry_package": parts.registry.facts["package"],
        "go_toolchains": {version: programs[version].facts["go"] for version in versions},
        "tools": tools,
        "step_seconds": _step_seconds(place),
    }
    temporary = place.record.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    temporary.replace(place.record)
    remove_tree(work)
    say(f"{len(images)} images signed and published in {time.monotonic() - began_s:.1f} s")


def _new_signables(layout: Layout, known: list[Signable], version: str) -> list[Signable]:
    seen = {item.reference for item in known}
    return [
        Signable(entry["annotations"][REF_NAME], entry["digest"], version)
        for entry in layout.entries
        if entry["annotations"][REF_NAME] not in seen
    ]


def _step_seconds(place: Place) -> dict[str, float]:
    seconds = {}
    for path in sorted(place.steps.glob("*/result.json")):
        seconds[path.parent.name] = json.loads(path.read_text())["facts"]["seconds"]
    return seconds
