"""The values of planning: image requirements, catalogue, imager profile and build plan.

A profile is the imager's own input document (Talos ``pkg/imager/profile``). Where that document
names a file, ours holds *what the file is* (an :class:`Input`); the place inside the container is
filled in only when a build is prepared, so planning stays pure and a profile never holds a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from local_imager.oci.model import Digest, Reference
from local_imager.profile.version import TalosVersion

Arch = Literal["amd64", "arm64"]
ARCHES: Final[tuple[Arch, ...]] = ("amd64", "arm64")
Kind = Literal["kernel", "initramfs", "cmdline", "uki", "iso", "image", "installer"]
Role = Literal[
    "builder",  # the imager image whose code runs
    "base",  # the imager image of the version asked for: source of the boot assets
    "base-installer",
    "extensions-catalogue",
    "overlays-catalogue",
    "extension",
    "overlay",
]


@dataclass(frozen=True, slots=True)
class Requirement:
    """An image that a build needs: ``name`` is the repository path without the registry.

    ``tag`` and ``digest`` are what is known while planning (a catalogue gives both); ``arch`` is
    the platform that is taken out of a multi-architecture image, None for the builder's own.
    """

    role: Role
    name: str
    tag: str = ""
    digest: Digest | None = None
    arch: Arch | None = None

    def reference(self, registry: str) -> Reference:
        """Return the image's full reference below a registry prefix (``host[/path]``)."""
        host, _, prefix = registry.partition("/")
        repository = f"{prefix}/{self.name}" if prefix else self.name
        return Reference(host, repository, self.tag, self.digest)

    def arches(self, host: Arch) -> tuple[Arch, ...]:
        """Return the architectures whose bytes a build on ``host`` reads; none: any one will do.

        The imager runs on the host, and each platform's image has the boot assets of all; a
        catalogue is the same for every architecture.
        """
        if self.arch is not None:
            return (self.arch,)
        return (host,) if self.role in ("builder", "base") else ()


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An input that is an OCI layout directory of one image (the imager's ``ociPath``)."""

    requirement: Requirement


@dataclass(frozen=True, slots=True)
class TarInput:
    """An input that is a tar file made by ourselves: the virtual ``schematic`` extension."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A boot asset out of the base image, below ``/usr/install/<arch>/``."""

    arch: Arch
    name: str


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of the user's secure boot key directory (``uki-signing-key.pem``, …)."""

    name: str


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that an earlier run of the same build made: the normalised initramfs."""

    name: str
    digest: Digest


Input = ImageInput | TarInput | BaseFile | KeyFile | MadeFile
Locate = Callable[[Input], str]
"""Gives the path, inside the build container, of an input."""


@dataclass(frozen=True, slots=True)
class CatalogueExtension:
    """One line of the official extension catalogue of a version."""

    name: str
    reference: Reference
    digest: Digest
    author: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class CatalogueOverlay:
    """One entry of the overlay catalogue; ``image`` is the repository path without registry.

    ``profile_document`` is the text of ``profiles/<name>.yaml`` from the verified overlay image;
    ``None`` means that it has not been looked for, an empty string that the image has none.
    """

    name: str
    image: str
    reference: Reference
    digest: Digest
    profile_document: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The extensions and overlays that exist for one version, in the order of the catalogue."""

    version: TalosVersion
    extensions: tuple[CatalogueExtension, ...] = ()
    overlays: tuple[CatalogueOverlay, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """An imager profile: ``document`` under the imager's own keys, with :class:`Input` leaves."""

    document: Mapping[str, Any]

    def rendered(self, locate: Locate) -> dict[str, Any]:
        """Return a plain document in which each input is replaced by its path."""
        return {key: _render(value, locate) for key, value in self.document.items()}

    def inputs(self) -> tuple[Input, ...]:
        """Return every input that the profile refers to, each once, in document order."""
        found: dict[Input, None] = {}

        def note(item: Input) -> str:
            found[item] = None
            return ""

        self.rendered(note)
        return tuple(found)

    @property
    def kind(self) -> Kind:
        """The imager's output kind."""
        kind: Kind = self.document["output"]["kind"]
        return kind

    @property
    def arch(self) -> Arch:
        """The architecture of the asset."""
        arch: Arch = self.document["arch"]
        return arch


def _render(value: Any, locate: Locate) -> Any:
    if isinstance(value, ImageInput | TarInput | BaseFile | KeyFile | MadeFile):
        return locate(value)
    if isinstance(value, Mapping):
        return {key: _render(item, locate) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, locate) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What planning needs to know beside schematic, version and asset.

    ``builder`` None means that no imager is at hand yet. ``key_files`` are the names present in
    the secure boot key directory. ``factory_url`` goes into the virtual extension's author line.
    """

    builder: TalosVersion | None = None
    factory_url: str = "https://factory.talos.dev/"
    key_files: frozenset[str] = frozenset()
    host_arch: Arch = "amd64"


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What has to be done for one asset.

    ``resolved`` is False when no catalogue was given, so that extension and overlay digests are
    unknown. ``output_name`` is the file that the imager writes before compression is undone or
    names are changed; ``warnings`` are sentences for people (what will not take effect and why).
    """

    schematic_id: str
    version: TalosVersion
    asset: str
    profile: Profile
    requirements: tuple[Requirement, ...]
    builder: TalosVersion | None
    resolved: bool
    output_name: str
    warnings: tuple[str, ...] = ()
    holds_secrets: bool = False
