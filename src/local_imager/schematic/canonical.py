"""The canonical text of a schematic, and the ID: the SHA-256 of that text.

Fields come in the order of the factory's own structure, empty ones are left out, and the text is
what the factory's YAML library would write.
"""

from __future__ import annotations

from local_imager.schematic.goyaml.emitter import Fields, emit
from local_imager.schematic.model import Customization, Overlay, Schematic, SchematicID, SecureBoot


def canonical_text(schematic: Schematic) -> str:
    """Return the text whose hash is the schematic's ID; it reads back as the same schematic."""
    fields = Fields()
    _add(fields, "overlay", _overlay(schematic.overlay))
    fields.append(("customization", _customization(schematic.customization)))
    return emit(fields)


def canonical_bytes(schematic: Schematic) -> bytes:
    """Return the canonical text in UTF-8."""
    return canonical_text(schematic).encode()


def schematic_id(schematic: Schematic) -> SchematicID:
    """Return the ID that the factory gives this schematic."""
    from hashlib import sha256

    return SchematicID(sha256(canonical_bytes(schematic)).hexdigest())


def _add(fields: Fields, key: str, value: object) -> None:
    """Add a field unless it is empty."""
    if value:
        fields.append((key, value))


def _overlay(overlay: Overlay) -> Fields:
    fields = Fields()
    if overlay.image or overlay.name or overlay.options:
        fields += [("image", overlay.image), ("name", overlay.name)]
        _add(fields, "options", overlay.options)
    return fields


def _customization(customization: Customization) -> Fields:
    fields = Fields()
    _add(fields, "embeddedMachineConfiguration", customization.embedded_machine_configuration)
    _add(fields, "extraKernelArgs", customization.extra_kernel_args)
    meta = [Fields([("key", item.key), ("value", item.value)]) for item in customization.meta]
    _add(fields, "meta", meta)
    extensions = Fields()
    _add(extensions, "officialExtensions", customization.official_extensions)
    _add(fields, "systemExtensions", extensions)
    _add(fields, "bootloader", customization.bootloader)
    _add(fields, "secureboot", _secureboot(customization.secureboot))
    disk_image = Fields()
    _add(disk_image, "sectorSize", customization.sector_size)
    _add(fields, "diskImage", disk_image)
    return fields


def _secureboot(secureboot: SecureBoot) -> Fields:
    fields = Fields()
    _add(fields, "enrollKeys", secureboot.enroll_keys)
    _add(fields, "includeWellKnownCertificates", secureboot.include_well_known_certificates)
    return fields
