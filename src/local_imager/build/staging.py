"""Lays out what a run may read: verified images, boot files, our own tars and signing keys.

Every file is a hard link where the container's user can read the original, else a copy: the
permissions of the store's own files are never changed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from local_imager.build.container import ContainerUser
from local_imager.build.request import INPUT_ROOT, KEY_ROOT
from local_imager.errors import BuildError, InputError
from local_imager.oci.export import export_image
from local_imager.profile.model import (
    BaseFile,
    BuildPlan,
    ImageInput,
    Input,
    KeyFile,
    MadeFile,
    Requirement,
    TarInput,
)

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout
    from local_imager.sources.verify import VerifiedImage

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}")
# Below the inputs: what earlier runs of the same build made.
_MADE: Final = "made"
# A PEM key with its certificate chain is a few KiB; more is not a key.
MAX_KEY_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class StagedInputs:
    """A prepared run: directories to mount and the profile as the imager reads it."""

    input_dir: Path
    key_dir: Path | None
    profile: bytes


def render_document(document: Mapping[str, Any]) -> bytes:
    """Return a profile as YAML that every YAML parser reads alike.

    It is written in YAML's JSON subset, every text in double quotes and escaped to ASCII: plain
    YAML scalars mean different types to different parsers (``0o17``, ``12:30``, ``on``).
    """
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return re.sub(r"[^\x20-\x7e\n]", _escaped, text).encode("ascii") + b"\n"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def locate_input(item: Input, images: Mapping[Requirement, VerifiedImage]) -> str:
    """Return the path of an input inside the container; pure."""
    match item:
        case ImageInput(requirement):
            image = images.get(requirement)
            if image is None:
                raise BuildError(f"no verified image was given for {requirement.name}")
            return f"{INPUT_ROOT}/images/{requirement.arch or 'any'}-{image.digest.hex}"
        case TarInput(name, _):
            return f"{INPUT_ROOT}/schematic/{_safe(name)}"
        case BaseFile(arch, name):
            return f"{INPUT_ROOT}/base/{arch}/{_safe(name)}"
        case KeyFile(name):
            return f"{KEY_ROOT}/{_safe(name)}"
        case MadeFile(name, _):
            return f"{INPUT_ROOT}/{_MADE}/{_safe(name)}"


def _safe(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise BuildError(f"{name!r} cannot be the name of an input file")
    return name


def stage_inputs(
    plan: BuildPlan,
    images: Mapping[Requirement, VerifiedImage],
    layout: Layout,
    boot_files: Mapping[str, Path],
    key_dir: Path | None,
    dest: Path,
    user: ContainerUser,
    made: Mapping[MadeFile, Path | None] = MappingProxyType({}),
) -> StagedInputs:
    """Prepare everything that the plan's profile refers to below ``dest``.

    ``boot_files`` maps the names of :class:`BaseFile` to files, ``made`` says where what earlier
    runs made lies, or None for what :func:`provide_made` brings later; ``user`` is who must be
    able to read. Raises :class:`InputError` for a missing or unusable key, :class:`BuildError`
    when an input was not provided.
    """
    input_dir, staged_keys = dest / "in", dest / "keys"
    input_dir.mkdir(parents=True, exist_ok=True)
    has_keys = False
    for item in plan.profile.inputs():
        inside = locate_input(item, images)
        match item:
            case ImageInput(requirement):
                target = input_dir / inside.removeprefix(INPUT_ROOT + "/")
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    export_image(layout, images[requirement].digest, requirement.arch, target)
                    _make_readable(target, user)
            case TarInput(_, content):
                _write(input_dir / inside.removeprefix(INPUT_ROOT + "/"), content)
            case BaseFile(arch, name):
                source = boot_files.get(name)
                if source is None:
                    raise BuildError(f"the base image has no {name} for {arch}")
                _provide(source, input_dir / inside.removeprefix(INPUT_ROOT + "/"), user)
            case KeyFile(name):
                has_keys = True
                _stage_key(key_dir, name, staged_keys, user)
            case MadeFile(name, _):
                if item not in made:
                    raise BuildError(f"no earlier run made {name}")
                (input_dir / _MADE).mkdir(exist_ok=True)
                source = made[item]
                if source is not None:
                    provide_made(input_dir, item, source, user)
    _make_readable(input_dir, user)
    document = plan.profile.rendered(lambda item: locate_input(item, images))
    return StagedInputs(input_dir, staged_keys if has_keys else None, render_document(document))


def provide_made(input_dir: Path, file: MadeFile, source: Path, user: ContainerUser) -> None:
    """Put what an earlier run made where the profile says that it lies; ``user`` can read it."""
    _provide(source, input_dir / _MADE / _safe(file.name), user)


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _provide(source: Path, target: Path, user: ContainerUser) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if _may_read(source.stat(), user):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links: copied below
    shutil.copyfile(source, target)
    os.chmod(target, 0o644)


def _may_read(status: os.stat_result, user: ContainerUser) -> bool:
    if status.st_uid == user.outside_uid:
        return bool(status.st_mode & stat.S_IRUSR)
    return bool(status.st_mode & stat.S_IROTH)


def _make_readable(root: Path, user: ContainerUser) -> None:
    """Open directories for the container's user and replace links that it could not read."""
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o755)  # noqa: S103 - below a workspace that is itself 0700
        for name in names:
            path = Path(folder, name)
            if not _may_read(path.stat(), user):
                copy = path.with_name(name + ".copy")
                shutil.copyfile(path, copy)
                os.chmod(copy, 0o644)
                copy.replace(path)


def _stage_key(key_dir: Path | None, name: str, dest: Path, user: ContainerUser) -> None:
    if key_dir is None:
        raise InputError(
            f"signing needs {name}, and no key directory is set",
            hint="give --secureboot-keys DIR; `local-imager secureboot keygen DIR` makes keys",
        )
    source = key_dir / _safe(name)
    try:
        with source.open("rb") as stream:
            data = stream.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"the secure boot key file cannot be read: {error.strerror}",
            source=str(source),
            hint="`local-imager secureboot keygen DIR` makes a full set",
        ) from error
    if len(data) > MAX_KEY_BYTES:
        raise InputError("is too large to be a key", source=str(source))
    dest.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = dest / name
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o400)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    for path in (dest, target):
        give_to(path, user)


def give_to(path: Path, user: ContainerUser) -> None:
    """Make the container's user the owner of a path of ours (only root can and has to)."""
    if os.geteuid() == 0 and user.outside_uid != 0:
        os.chown(path, user.outside_uid, user.outside_gid, follow_symlinks=False)
