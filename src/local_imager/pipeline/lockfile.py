"""The lock: which images, by digest, builds of some schematics and versions are made from.

A small TOML file that people review and bots update. One content has one spelling: everything is
sorted, nothing in it is a time or a place of this machine, and of a schematic it holds the ID only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_imager.oci.durable import explained, replace_file
from local_imager.oci.model import Digest
from local_imager.profile.model import Arch, Requirement, Role
from local_imager.profile.version import TalosVersion

FORMAT: Final = 1
DEFAULT_FILE: Final = "local-imager.lock"
# What an update bot looks up to learn of a new version of Talos.
_BOT_IMAGE: Final = "siderolabs/imager"
_HEADER: Final = """\
# Which source images `local-imager build --locked` uses: exactly these, by digest.
# Made by `local-imager lock`. Renew it with `local-imager lock --update`, do not edit digests.
"""


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One input: ``digest`` is what is signed (an index, or a manifest), by ``signer``.

    ``size_bytes`` is what a fetch brings, by architecture (``any`` for a single manifest).
    """

    role: Role
    name: str
    tag: str
    digest: Digest
    signer: str
    size_bytes: Mapping[str, int]

    @property
    def key(self) -> tuple[Role, str, str]:
        """What a requirement has to agree with to mean this image."""
        return (self.role, self.name, self.tag)


@dataclass(frozen=True, slots=True)
class LockedVersion:
    """All images for one Talos version; ``builder`` is the imager that runs."""

    version: TalosVersion
    builder: TalosVersion
    images: tuple[LockedImage, ...]

    def find(self, requirement: Requirement) -> LockedImage | None:
        """Return the image that a requirement means, or None."""
        wanted = (requirement.role, requirement.name, requirement.tag)
        return next((image for image in self.images if image.key == wanted), None)


@dataclass(frozen=True, slots=True, order=True)
class LockedSchematic:
    """A schematic by ID; ``file`` is its path seen from the lock, ``-`` for standard input."""

    file: str
    schematic_id: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What else decides the bytes of an asset: the settings and our own conversion steps."""

    epoch: int
    factory_url: str
    conversion: int


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of a lock file.

    ``trusted_roots`` are the digests of the roots that signatures leaned on (or, where none was
    needed, of the one at hand); ``policy`` says in words which rules accepted the images.
    """

    tool: str
    registry: str
    arches: tuple[Arch, ...]
    recipe: Recipe
    trusted_roots: tuple[str, ...]
    policy: tuple[str, ...]
    schematics: tuple[LockedSchematic, ...]
    versions: tuple[LockedVersion, ...]

    def find(self, version: TalosVersion) -> LockedVersion | None:
        """Return what is locked of a version, or None."""
        return next((entry for entry in self.versions if entry.version == version), None)

    @property
    def image_count(self) -> int:
        """How many images are locked, each counted once."""
        return len({image.digest for entry in self.versions for image in entry.images})


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock as it was read: ``digest`` is the SHA-256 of the file's bytes."""

    path: Path
    lock: Lock
    digest: Digest


def stable_signer(signer: str) -> str:
    """Return who signed without the order in which several signatures were found."""
    return ", ".join(sorted(signer.split(", ")))


def render_lock(lock: Lock) -> bytes:
    """Return the one spelling of a lock in TOML 1.0; reads back as the same value."""
    return (_HEADER + "\n".join(_lines(lock)) + "\n").encode()


def write_lock(path: Path, lock: Lock) -> LockFile:
    """Write a lock so that a reader sees the old file or the new one; raises StoreError."""
    data = render_lock(lock)
    with explained(f"write {path}"):
        if not path.is_file() or path.read_bytes() != data:
            replace_file(path, data)
    return LockFile(path, lock, Digest.of(data))


def _lines(lock: Lock) -> Iterator[str]:
    yield f"format = {FORMAT}"
    yield f"tool = {_text(lock.tool)}"
    yield f"registry = {_text(lock.registry)}"
    yield f"arches = {_list(lock.arches)}"
    yield "\n[recipe]"
    yield f"epoch = {lock.recipe.epoch}"
    yield f"factory_url = {_text(lock.recipe.factory_url)}"
    yield f"conversion = {lock.recipe.conversion}"
    yield "\n[trust]"
    yield f"trusted_roots = {_list(sorted(lock.trusted_roots))}"
    yield "policy = ["
    yield from (f"  {_text(rule)}," for rule in sorted(lock.policy))
    yield "]"
    for schematic in sorted(lock.schematics):
        yield "\n[[schematic]]"
        yield f"file = {_text(schematic.file)}"
        yield f"id = {_text(schematic.schematic_id)}"
    for entry in sorted(lock.versions, key=lambda entry: entry.version):
        yield "\n[[version]]"
        yield f"# renovate: datasource=docker depName={lock.registry}/{_BOT_IMAGE}"
        yield f"version = {_text(str(entry.version))}"
        yield f"builder = {_text(str(entry.builder))}"
        for image in sorted(entry.images, key=lambda image: image.key):
            yield from _image_lines(image)


def _image_lines(image: LockedImage) -> Iterator[str]:
    sizes = ", ".join(f"{arch} = {size}" for arch, size in sorted(image.size_bytes.items()))
    yield "\n[[version.image]]"
    yield f"role = {_text(image.role)}"
    yield f"name = {_text(image.name)}"
    yield f"tag = {_text(image.tag)}"
    yield f"digest = {_text(str(image.digest))}"
    yield f"signer = {_text(image.signer)}"
    yield f"size_bytes = {{ {sizes} }}"


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _text(value: str) -> str:
    """Write a basic string; TOML wants quote, backslash and control characters escaped."""
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x20 or 0x7F <= code < 0xA0 else character
