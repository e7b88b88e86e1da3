"""What a bundle is asked to hold, checked before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local_imager.errors import InputError
from local_imager.events import printable
from local_imager.oci.model import Reference
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Arch
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic

STANDARD_INPUT: Final = "-"
LOCK_NAME: Final = "local-imager.lock"
POLICY_NAME: Final = "policy.toml"
ROOT_NAME: Final = "trusted-root.json"
# Files of ours with a number or a digest in their name begin so.
OWN_PREFIXES: Final = ("key-", "trusted-root-", "tighten-")
ALL: Final = "all"
# A cluster with all that runs in it has some hundred images.
MAX_IMAGES_FILE_BYTES: Final = 1024**2
MAX_IMAGES: Final = 10_000
# What every file system of the far side takes, and nothing that a shell there would stumble over.
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_WRITE: Final = "write registry/repository:tag or registry/repository@sha256:…"


@dataclass(frozen=True, slots=True)
class SchematicFile:
    """A schematic with the bytes of its file, which travel as they are under its base name."""

    name: str
    data: bytes = field(repr=False)
    schematic: Schematic


@dataclass(frozen=True, slots=True)
class Order:
    """What a bundle is to hold.

    ``arches`` are those of the machines that images are made for, ``host_arches`` those of the
    machines that run the imager on the far side. Extensions and overlays are names of the
    catalogue, beside what the schematics name. ``images`` are any further images.
    """

    versions: tuple[TalosVersion, ...]
    arches: tuple[Arch, ...]
    host_arches: tuple[Arch, ...]
    schematics: tuple[SchematicFile, ...] = ()
    extensions: tuple[str, ...] = ()
    all_extensions: bool = False
    overlays: tuple[str, ...] = ()
    all_overlays: bool = False
    assets: tuple[str, ...] = ()
    images: tuple[Reference, ...] = ()
    offline: bool = False

    def check(self) -> Order:
        """Return the order; raises :class:`InputError` for what does not go together."""
        if not (self.versions or self.images):
            raise InputError(
                "it is not said what the bundle is to hold",
                hint="give --version V (with --schematic F for all that it needs), or --image REF",
            )
        of_versions = (
            ("--schematic", bool(self.schematics)),
            ("--extensions", bool(self.extensions) or self.all_extensions),
            ("--overlays", bool(self.overlays) or self.all_overlays),
            ("--with-assets", bool(self.assets)),
        )
        for option, given in of_versions:
            if given and not self.versions:
                raise InputError(
                    f"{option} is about a version of Talos, and none is given",
                    hint="give --version V, such as --version v1.13.0",
                )
        if self.assets and not self.schematics:
            raise InputError(
                "--with-assets builds what a schematic describes, and none is given",
                hint="give --schematic FILE; the smallest one is `customization: {}`",
            )
        self._check_arches()
        _check_names(self.schematics)
        return self

    def _check_arches(self) -> None:
        for asset in self.assets:
            arch = AssetName.parse(asset).arch
            if arch not in self.arches:
                raise InputError(
                    f"{asset} is for {arch}, and the bundle is made for {', '.join(self.arches)}",
                    hint=f"give --arch {arch} too",
                )


def _check_names(schematics: Iterable[SchematicFile]) -> None:
    """Each schematic travels under its base name, beside files of ours."""
    seen: set[str] = set()
    for entry in schematics:
        name = entry.name
        taken = name in (LOCK_NAME, POLICY_NAME, ROOT_NAME) or name.startswith(OWN_PREFIXES)
        problem = "that is the name of another file in the bundle" if taken else ""
        if name in seen:
            problem = "two schematics have it"
        if not FILE_NAME.fullmatch(name):
            problem = "it is too long, or has other characters than letters, digits and ._+-"
        if problem:
            raise InputError(
                f"the schematic {printable(name, limit=80)!r} cannot travel under its name: "
                f"{problem}",
                hint="rename the file",
                source=printable(name, limit=80),
            )
        seen.add(name)


def read_schematic_file(path: str) -> SchematicFile:
    """Read a schematic with its bytes; ``-`` is standard input and travels as ``schematic.yaml``.

    Raises :class:`SchematicError` for what is none or cannot be read.
    """
    from local_imager.schematic.parse import parse_schematic, read_schematic_bytes

    data = read_schematic_bytes(path)
    source = "<stdin>" if path == STANDARD_INPUT else path
    name = "schematic.yaml" if path == STANDARD_INPUT else Path(path).name
    return SchematicFile(name, data, parse_schematic(data, source=source))


def read_images_file(path: str) -> tuple[Reference, ...]:
    """Read references from a file, one a line; ``-`` is standard input.

    Empty lines and what follows a ``#`` are passed over. Raises :class:`InputError` that names
    the line.
    """
    import sys

    limit = MAX_IMAGES_FILE_BYTES + 1
    if path == STANDARD_INPUT:
        return parse_images(sys.stdin.buffer.read(limit), "<stdin>")
    try:
        with open(path, "rb") as file:
            return parse_images(file.read(limit), path)
    except OSError as error:
        raise InputError(
            f"cannot read the list of images {path}: {error.strerror}",
            hint="give a file with one image reference a line, or - for standard input",
            source=path,
        ) from error


def parse_images(untrusted_data: bytes, source: str) -> tuple[Reference, ...]:
    """Return the references of a list, each once, in their order; raises :class:`InputError`."""
    if len(untrusted_data) > MAX_IMAGES_FILE_BYTES:
        raise InputError(
            f"the list of images is larger than {MAX_IMAGES_FILE_BYTES >> 20} MiB",
            hint=_WRITE,
            source=source,
        )
    try:
        text = untrusted_data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            "the list of images is not UTF-8 text", hint=_WRITE, source=source
        ) from error
    found: dict[Reference, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        word = line.partition("#")[0].strip()
        if word:
            found[parse_image(word, source=source, line=number)] = None
    if len(found) > MAX_IMAGES:
        raise InputError(f"the list names more than {MAX_IMAGES} images", source=source)
    return tuple(found)


def parse_image(text: str, *, source: str = "--image", line: int | None = None) -> Reference:
    """Return the image that a person named in full; raises :class:`InputError`."""
    try:
        reference = Reference.parse(text)
    except InputError as error:
        shown = printable(text, limit=120)
        raise InputError(
            f"{shown!r} is not an image reference with its registry",
            hint=f"{error.hint}; nothing is added to a name, so docker.io/library/… in full",
            source=source,
            line=line,
        ) from error
    if not reference.tag and reference.digest is None:
        raise InputError(
            f"{reference} names neither a tag nor a digest", hint=_WRITE, source=source, line=line
        )
    return reference


def split_names(values: Sequence[str]) -> tuple[str, ...]:
    """Return names given as ``a,b`` and again, each once."""
    words = (word.strip() for value in values for word in value.split(","))
    return tuple(dict.fromkeys(word for word in words if word))
