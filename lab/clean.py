"""A container image that holds nothing of ours, and what pip would download into it.

It stands for a fresh runner of a CI system: Debian stable with Python, make, git and jq. Tests run
the documented pipelines in it, without the checkout's virtual environment and without a network.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, run
from lab.debian import need_packages
from lab.place import EPOCH_S, Place
from lab.rootfs import file_digest
from lab.sid import in_root, mirror, package_versions
from lab.steps import Facts, StepResult, build_lock, do_step, key_of, load_result, remove_tree

SUITE = "stable"
PACKAGES = ("ca-certificates", "git", "jq", "make", "python3", "python3-venv")
"""What docs/ci.md says a runner's image needs."""

IMAGE_NAME = "local-imager-lab/clean"
_LEFT_OUT = (
    "./dev/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "./usr/share/info/*",
)


@dataclass(frozen=True, slots=True)
class CleanImage:
    """The image as a docker-archive, its name with a tag that follows from its content."""

    archive: Path
    name: str
    python: str


def clean_image(place: Place) -> CleanImage:
    """Return the image, making it first when that has not been done (as root, with debootstrap)."""
    made = _stored(place, "clean", _image_inputs())
    if made is None:
        with build_lock(place):
            made = do_step(
                place, "clean", "a clean Debian for pipelines", _image_inputs(), _make_image
            )
    return CleanImage(made.folder / "image.tar", made.facts["name"], made.facts["python"])


def runtime_wheels(place: Place, requirements: Path, python: str) -> Path:
    """Return a folder with the wheels that hash-pinned requirements name, for a Python (``3.13``).

    They are downloaded by pip once for each state of the file, hashes checked, and never built.
    """
    inputs = {"requirements": file_digest(requirements), "python": python}

    def work(folder: Path) -> Facts:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python]
        argv = [sys.executable, "-m", "pip", "download", *options, "--require-hashes"]
        run([*argv, "--requirement", requirements, "--dest", folder])
        return {"wheels": sorted(path.name for path in folder.glob("*.whl"))}

    made = _stored(place, "wheels", inputs)
    if made is None:
        with build_lock(place):
            made = do_step(place, "wheels", f"wheels for Python {python}", inputs, work)
    return made.folder


def _stored(place: Place, name: str, inputs: Facts) -> StepResult | None:
    stored = load_result(place, name)
    return stored if stored is not None and stored.facts["key"] == key_of(inputs) else None


def _image_inputs() -> Facts:
    return {"suite": SUITE, "packages": PACKAGES, "left_out": _LEFT_OUT, "form": 1}


def _make_image(folder: Path) -> Facts:
    if os.geteuid() != 0:
        raise LabError("making a Debian root file system needs root: run this as root")
    need_packages(["build"])
    root, log = folder / "root", folder / "log"
    include = f"--include={','.join(PACKAGES)}"
    run(["debootstrap", "--variant=minbase", include, SUITE, root, mirror()], log=log)
    version = 'import sys; print("%d.%d" % sys.version_info[:2])'
    python = in_root(root, ["python3", "-c", version], log).strip()
    versions = package_versions(root, log)
    tar = _packed(root, folder / "layer.tar")
    remove_tree(root)
    name = _write_archive(folder, tar)
    tar.unlink()
    return {"name": name, "python": python, "packages": versions}


def _packed(root: Path, target: Path) -> Path:
    argv = ["tar", "-C", str(root), "--sort=name", f"--mtime=@{EPOCH_S}", "--numeric-owner"]
    run([*argv, *(f"--exclude={one}" for one in _LEFT_OUT), "-cf", target, "."])
    return target


def _write_archive(folder: Path, layer: Path) -> str:
    """Write `folder`/image.tar, which every engine loads, and return the image's name."""
    machine = run(["dpkg", "--print-architecture"]).strip()
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {
            "Cmd": ["bash"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [file_digest(layer)]},
        "history": [{"created_by": "local-imager lab"}],
    }
    raw = json.dumps(config).encode()
    digest = hashlib.sha256(raw).hexdigest()
    name = f"{IMAGE_NAME}:{digest[:16]}"
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / f"{digest}.json").write_bytes(raw)
    parts = ["manifest.json", f"{digest}.json", "layer.tar"]
    run(["tar", "-C", folder, "-cf", folder / "image.tar", *parts])
    for part in parts[:2]:
        (folder / part).unlink()
    return name
