"""The schematic as values: what a user may customise, and the ID that names a schematic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from local_imager.errors import SchematicError

BOOTLOADERS: Final = ("none", "dual-boot", "sd-boot", "grub")
ENROLL_KEYS: Final = ("if-safe", "manual", "force", "off")
MAX_META_KEY: Final = 255
MAX_SECTOR_SIZE: Final = (1 << 64) - 1

_ID = re.compile("[0-9a-f]{64}")
_SHORT_ID_CHARS = 12


@dataclass(frozen=True, slots=True)
class MetaValue:
    """One entry of the META partition: ``key`` is 0 to 255."""

    key: int = 0
    value: str = ""


@dataclass(frozen=True, slots=True)
class Overlay:
    """The overlay for a board: image, name and options.

    ``options`` hold None, bool, int, float, str, tuples, mappings, and the rarities that
    ``goyaml.values`` names.
    """

    image: str = ""
    name: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """How secure boot images are set up; ``enroll_keys`` is any text, as the factory takes it."""

    enroll_keys: str = ""
    include_well_known_certificates: bool = False


@dataclass(frozen=True, slots=True)
class Customization:
    """What is changed in the images; an empty value means "as Talos has it".

    ``bootloader`` is empty or one of BOOTLOADERS but ``none``; ``sector_size`` is in bytes, 0 for
    the default.
    """

    embedded_machine_configuration: str = ""
    extra_kernel_args: tuple[str, ...] = ()
    meta: tuple[MetaValue, ...] = ()
    official_extensions: tuple[str, ...] = ()
    bootloader: str = ""
    secureboot: SecureBoot = SecureBoot()
    sector_size: int = 0


@dataclass(frozen=True, slots=True)
class Schematic:
    """All that a schematic says."""

    overlay: Overlay = field(default_factory=Overlay)
    customization: Customization = field(default_factory=Customization)


class SchematicID(str):
    """A schematic's ID: 64 hexadecimal digits, the SHA-256 of the canonical text.

    Raises SchematicError for anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> SchematicID:
        """Check the text and make it an ID."""
        if not _ID.fullmatch(text):
            raise SchematicError(
                f"{text[:80]!r} is not a schematic ID",
                hint="an ID has 64 hexadecimal digits in small letters",
            )
        return super().__new__(cls, text)

    @property
    def short(self) -> str:
        """The first twelve digits, as used in paths."""
        return self[:_SHORT_ID_CHARS]
