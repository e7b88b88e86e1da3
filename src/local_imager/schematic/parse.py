"""Reading a schematic: strict, bounded, and with the factory's own accept and refuse decisions."""

from __future__ import annotations

from typing import Any, Final

from local_imager.errors import SchematicError
from local_imager.schematic.goyaml.composer import compose
from local_imager.schematic.goyaml.constructor import construct
from local_imager.schematic.goyaml.errors import YamlError
from local_imager.schematic.goyaml.shapes import (
    Bool,
    Enumerated,
    FreeMap,
    ListOf,
    Struct,
    Text,
    Unsigned,
)
from local_imager.schematic.model import (
    BOOTLOADERS,
    MAX_META_KEY,
    MAX_SECTOR_SIZE,
    Customization,
    MetaValue,
    Overlay,
    Schematic,
    SecureBoot,
)

# The largest schematics carry an embedded machine configuration with certificates: some 100 KiB.
MAX_SIZE_BYTES: Final = 1 << 20

_BOOTLOADER_DEFAULT = BOOTLOADERS[0]


def _parse_bootloader(text: str) -> str | None:
    word = text.lower()
    if word not in BOOTLOADERS:
        return None
    return "" if word == _BOOTLOADER_DEFAULT else word


_TEXT = Text()
_TEXTS = ListOf("a list of texts", _TEXT)
_META_VALUE = Struct("a META value", {"key": Unsigned(MAX_META_KEY), "value": _TEXT})
_CUSTOMIZATION = Struct(
    "customization",
    {
        "embeddedMachineConfiguration": _TEXT,
        "extraKernelArgs": _TEXTS,
        "meta": ListOf("a list of META values", _META_VALUE),
        "systemExtensions": Struct("systemExtensions", {"officialExtensions": _TEXTS}),
        "bootloader": Enumerated(f"one of {', '.join(BOOTLOADERS)}", _parse_bootloader),
        "secureboot": Struct(
            "secureboot", {"enrollKeys": _TEXT, "includeWellKnownCertificates": Bool()}
        ),
        "diskImage": Struct("diskImage", {"sectorSize": Unsigned(MAX_SECTOR_SIZE)}),
    },
)
_OVERLAY = Struct("overlay", {"image": _TEXT, "name": _TEXT, "options": FreeMap()})
_SCHEMATIC = Struct(
    "a schematic", {"owner": _TEXT, "overlay": _OVERLAY, "customization": _CUSTOMIZATION}
)


def parse_schematic(untrusted_data: bytes, *, source: str = "<schematic>") -> Schematic:
    """Return the schematic that the YAML or JSON text describes.

    Raises SchematicError with line, column and what is wrong: for text that the factory's YAML
    library does not read, for unknown and repeated keys, wrong types, an ``owner`` (which the
    community factory refuses) and for anything beyond the bounds on size, depth and aliases.
    """
    if len(untrusted_data) > MAX_SIZE_BYTES:
        raise too_large(source)
    try:
        root = compose(untrusted_data)
        fields = None if root is None else construct(root, _SCHEMATIC)
    except YamlError as error:
        raise SchematicError(
            error.message,
            hint=error.hint,
            source=source,
            line=error.line or None,
            column=error.column or None,
        ) from None
    except RecursionError:
        raise SchematicError("the schematic is nested too deeply", source=source) from None
    if fields is None:
        raise SchematicError(
            "the schematic is empty",
            hint="the smallest schematic is 'customization: {}'",
            source=source,
        )
    if fields.get("owner"):
        raise SchematicError(
            "'owner' is a feature of the Enterprise edition of the factory",
            hint="remove the key 'owner'",
            code="owner-not-supported",
            source=source,
        )
    return _schematic(fields)


def too_large(source: str) -> SchematicError:
    """Return the refusal of a schematic beyond MAX_SIZE_BYTES."""
    return SchematicError(
        f"the schematic is larger than {MAX_SIZE_BYTES >> 20} MiB",
        hint="a schematic is a short YAML or JSON document; is this the right file?",
        code="schematic-too-large",
        source=source,
    )


def _schematic(fields: dict[str, Any]) -> Schematic:
    overlay = fields.get("overlay", {})
    return Schematic(
        overlay=Overlay(
            image=overlay.get("image", ""),
            name=overlay.get("name", ""),
            options=overlay.get("options", {}),
        ),
        customization=_customization(fields.get("customization", {})),
    )


def _customization(fields: dict[str, Any]) -> Customization:
    secureboot = fields.get("secureboot", {})
    return Customization(
        embedded_machine_configuration=fields.get("embeddedMachineConfiguration", ""),
        extra_kernel_args=fields.get("extraKernelArgs", ()),
        meta=tuple(
            MetaValue(value.get("key", 0), value.get("value", ""))
            for value in fields.get("meta", ())
        ),
        official_extensions=fields.get("systemExtensions", {}).get("officialExtensions", ()),
        bootloader=fields.get("bootloader", ""),
        secureboot=SecureBoot(
            enroll_keys=secureboot.get("enrollKeys", ""),
            include_well_known_certificates=secureboot.get("includeWellKnownCertificates", False),
        ),
        sector_size=fields.get("diskImage", {}).get("sectorSize", 0),
    )


def read_schematic(path: str) -> Schematic:
    """Return the schematic in a file, or on standard input for ``-``.

    Raises SchematicError as :func:`parse_schematic` does, and when the file cannot be read.
    """
    source = "<stdin>" if path == "-" else path
    return parse_schematic(read_schematic_bytes(path), source=source)


def read_schematic_bytes(path: str) -> bytes:
    """Return the bytes of a schematic's file, or of standard input for ``-``, as they are.

    Reads one byte more than MAX_SIZE_BYTES at most, whatever the file holds. Raises SchematicError
    when the file cannot be read.
    """
    import sys

    limit = MAX_SIZE_BYTES + 1
    if path == "-":
        return sys.stdin.buffer.read(limit)
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise SchematicError(
            f"cannot read the schematic {path}: {error.strerror}",
            hint="give the path of a YAML file, or - for standard input",
            code="schematic-unreadable",
            source=path,
        ) from error
