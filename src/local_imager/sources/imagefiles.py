"""Files out of verified images that lie in the store: catalogues, overlay profiles, boot assets.

Only a :class:`VerifiedImage` comes in, so nothing unverified is ever unpacked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from local_imager.errors import NotFound, SourceError
from local_imager.events import EventSink, step
from local_imager.oci.export import select_image
from local_imager.oci.layout import Layout
from local_imager.oci.model import ANNOTATION_TITLE, Digest, Index, Manifest
from local_imager.profile.model import ARCHES, Arch, Requirement
from local_imager.sources.unpack import extract_files
from local_imager.sources.verify import VerifiedImage
from local_imager.store.store import Store

ARTIFACT_BOOT_FILES: Final = "application/vnd.local-imager.boot-files.v1"
REQUIRED_BOOT_FILES: Final = ("vmlinuz", "initramfs.xz")
# Imagers of before Talos 1.5 (arm64: some later ones) have no systemd boot assets.
OPTIONAL_BOOT_FILES: Final = ("systemd-boot.efi", "systemd-stub.efi")
_MEDIA_FILE: Final = "application/octet-stream"


def image_manifests(layout: Layout, digest: Digest, first: Sequence[str]) -> list[Manifest]:
    """Return the image manifests below a digest that are in the layout, preferred ones first."""
    found: list[Manifest] = []
    for arch in dict.fromkeys((*first, *ARCHES)):
        try:
            _, manifest = select_image(layout, digest, arch)
        except NotFound:
            continue
        if manifest.digest not in {other.digest for other in found}:
            found.append(manifest)
    return found


def read_files(
    store: Store, image: VerifiedImage, names: Collection[str], *, max_bytes: int
) -> Mapping[str, bytes]:
    """Return small files of a verified image by name; absent ones are left out.

    Takes any architecture that is in the store. Raises :class:`SourceError`.
    """
    manifests = image_manifests(store.layout, image.digest, ())
    if not manifests:
        raise NotFound(f"the store has no part of {image.reference}")
    with store.workspace() as scratch:
        layers = _layer_paths(store.layout, manifests[0])
        found = extract_files(layers, names, scratch / "files", max_file_bytes=max_bytes)
        return {name: path.read_bytes() for name, path in found.items()}


def needed_file(files: Mapping[str, bytes], name: str, of: Requirement) -> bytes:
    """Return one of the files read; raises :class:`SourceError` when the image lacks it."""
    if name not in files:
        raise SourceError(f"{of.name}:{of.tag} holds no {name}", code="malformed")
    return files[name]


def boot_files(
    store: Store, base: VerifiedImage, arch: Arch, host_arch: Arch, sink: EventSink
) -> Mapping[str, Path]:
    """Return the boot assets ``/usr/install/<arch>/…`` of a verified imager, by file name.

    Taken out once per image and kept in the store as an artifact; each use checks the bytes.
    Raises :class:`SourceError` when the kernel or the initramfs is missing.
    """
    layout = store.layout
    manifests = image_manifests(layout, base.digest, (host_arch, arch))
    kept = _first_kept(layout, manifests, arch)
    if kept is not None:
        return kept
    # Several builds that begin at once want the same files: one takes them out, the others wait.
    with store.build_lock(f"boot-{base.digest.hex}-{arch}"):
        for manifest in manifests:
            kept = _first_kept(layout, manifests, arch)
            if kept is not None:
                return kept
            with step(sink, "unpack", f"boot assets of {base.reference} for {arch}"):
                _take_out(store, manifest, arch)
        kept = _first_kept(layout, manifests, arch)
    if kept is not None:
        return kept
    raise SourceError(
        f"{base.reference} has no kernel and initramfs for {arch}",
        hint=f"an imager image holds them below /usr/install/{arch}",
        code="boot-files",
    )


def boot_name(manifest: Digest, arch: str) -> str:
    """Return the name in the store of the boot assets taken out of an image."""
    return f"local-imager/boot/{manifest.hex}/{arch}"


def _first_kept(
    layout: Layout, manifests: Sequence[Manifest], arch: Arch
) -> Mapping[str, Path] | None:
    found = (_kept(layout, boot_name(manifest.digest, arch)) for manifest in manifests)
    return next((kept for kept in found if kept is not None), None)


def _kept(layout: Layout, name: str) -> Mapping[str, Path] | None:
    entry = layout.resolve(name)
    if entry is None or not layout.has(entry.digest):
        return None
    manifest = layout.read_manifest(entry)
    if isinstance(manifest, Index):
        return None
    found = {}
    for layer in manifest.layers:
        if not layout.intact(layer.digest, layer.size_bytes):
            return None
        found[layer.annotations.get(ANNOTATION_TITLE, "")] = layout.blob_path(layer.digest)
    return found


def _take_out(store: Store, manifest: Manifest, arch: Arch) -> None:
    """Extract and store the boot assets; nothing when this image does not have them."""
    names = (*REQUIRED_BOOT_FILES, *OPTIONAL_BOOT_FILES)
    paths = {f"usr/install/{arch}/{name}": name for name in names}
    layout = store.layout
    with store.workspace() as scratch, layout.writing():
        layers = _layer_paths(layout, manifest)
        found = extract_files(layers, paths, scratch / "files")
        by_name = {paths[path]: file for path, file in found.items()}
        if not all(name in by_name for name in REQUIRED_BOOT_FILES):
            return
        # Two names may be links to one file, so nothing is moved before all are stored.
        stored = [
            layout.put_file(by_name[name], _MEDIA_FILE, annotations={ANNOTATION_TITLE: name})
            for name in names
            if name in by_name
        ]
        artifact = layout.put_artifact(ARTIFACT_BOOT_FILES, *stored)
        layout.set_ref(boot_name(manifest.digest, arch), artifact)


def _layer_paths(layout: Layout, manifest: Manifest) -> list[Path]:
    """Return the layers' blob files, lowest first; each must have the bytes of its digest."""
    for layer in manifest.layers:
        if not layout.intact(layer.digest, layer.size_bytes):
            raise NotFound(
                f"the store has lost layer {layer.digest.short} of an image, or it is damaged",
                hint="`local-imager store fsck --repair`, then run the command again",
            )
    return [layout.blob_path(layer.digest) for layer in manifest.layers]
