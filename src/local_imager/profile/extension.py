"""The virtual extension ``schematic``, which tells a running machine what it was built from.

The factory adds it to every image with extensions in it: a tar file with a manifest and an empty
file named after the schematic ID. ``talosctl get extensions`` shows it. Reproduced byte for byte,
since it ends up in the initramfs and in everything that is measured or signed from it.
"""

from __future__ import annotations

import re
from typing import Final

from local_imager.errors import InputError
from local_imager.profile.model import TarInput
from local_imager.profile.quirks import Feature, Quirks
from local_imager.profile.version import TalosVersion
from local_imager.schematic.goyaml.emitter import Fields, emit

_DESCRIPTION: Final = (
    "Virtual extension which specifies the schematic of the image built with schematic."
)
_SHARE: Final = "rootfs/usr/local/share/schematic/"
_BLOCK: Final = 512
_REGULAR: Final = b"0"
_DIRECTORY: Final = b"5"


def schematic_extension(
    schematic_id: str, canonical_text: str, version: TalosVersion, factory_url: str
) -> TarInput:
    """Return the virtual extension of a schematic for a version.

    From Talos 1.7 on it carries the schematic's canonical text. Raises :class:`InputError` when
    the factory URL, which stands in the author line, is not one word.
    """
    if not factory_url or not factory_url.isprintable() or re.search(r"\s", factory_url):
        raise InputError(
            f"the factory URL {factory_url[:80]!r} is not a URL",
            hint="it is written into images as their author; the default is right for most uses",
            code="factory-url",
        )
    with_text = Quirks.of(version).has(Feature.OVERLAY)
    manifest = _manifest(schematic_id, factory_url, canonical_text if with_text else "")
    entries = [_entry("manifest.yaml", _REGULAR, manifest.encode())]
    folders = ("rootfs/", "rootfs/usr/", "rootfs/usr/local/", "rootfs/usr/local/share/", _SHARE)
    entries += [_entry(name, _DIRECTORY) for name in folders]
    entries.append(_entry(_SHARE + schematic_id, _REGULAR))
    name = f"{schematic_id}-{'true' if with_text else 'false'}.tar"
    return TarInput(name, b"".join(entries) + bytes(2 * _BLOCK))


def _manifest(schematic_id: str, factory_url: str, extra_info: str) -> str:
    compatibility = Fields([("talos", Fields([("version", ">= 1.0.0")]))])
    metadata = Fields(
        [
            ("name", "schematic"),
            ("version", schematic_id),
            ("author", f"Image Factory ({factory_url})"),
            ("description", _DESCRIPTION),
            ("compatibility", compatibility),
        ]
    )
    if extra_info:
        metadata.append(("extraInfo", extra_info))
    return emit(Fields([("version", "v1alpha1"), ("metadata", metadata)]))


def _entry(name: str, kind: bytes, content: bytes = b"") -> bytes:
    """Return a ustar member: root's, of the first second of 1970, with nothing in any extra."""
    mode = 0o755 if kind == _DIRECTORY else 0o644
    header = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % 0,  # uid
            b"%07o\0" % 0,  # gid
            b"%011o\0" % len(content),
            b"%011o\0" % 0,  # mtime
            b" " * 8,  # the checksum counts its own field as spaces
            kind,
            bytes(100),  # link name
            b"ustar\x0000",
            bytes(64),  # user and group names
            b"%07o\0" % 0,  # device major
            b"%07o\0" % 0,  # device minor
            bytes(167),  # prefix, padding
        )
    )
    checksum = b"%06o\0 " % sum(header)
    header = header[:148] + checksum + header[156:]
    return header + content + bytes(-len(content) % _BLOCK)
