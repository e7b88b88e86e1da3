"""Harnesses for PE files with their signatures, ISO images, tar archives and images in them."""

from __future__ import annotations

import hashlib
from typing import Final

from local_imager.formats.archive import ImageArchive, image_archive_of, ova_of
from local_imager.formats.authenticode import read_signatures
from local_imager.formats.entries import Volume
from local_imager.formats.iso import read_iso
from local_imager.formats.pcrsig import read_pcr_signatures
from local_imager.formats.pe import authentihash, read_pe, section_source
from local_imager.formats.source import BytesSource, FormatError, sha256_of
from local_imager.formats.tar import is_tar, read_tar
from local_imager.formats.uki import read_uki
from tests.fuzz.archives import mended
from tests.fuzz.diskfiles import disk_of
from tests.fuzz.driver import Fault, Harness
from tests.pebytes import UKI_SECTIONS, make_pe, public_pem, signer, with_signatures

_PLAIN: Final = make_pe(UKI_SECTIONS)
_LOOKED_AT: Final = 40
_MAX_CONTENT_BYTES: Final = 1 << 20
_JSON_PLACE: Final = b"@digest@"


def pe(data: bytes) -> None:
    """A PE file with everything that is asked of one."""
    source = BytesSource(data)
    read = read_pe(source)
    for section in read.sections[:_LOOKED_AT]:
        if section_source(source, section).size_bytes > len(data):
            raise Fault("a section is larger than its file")
    read_signatures(source, read)
    uki = read_uki(source, read)
    if uki is not None and not uki.profiles:
        raise Fault("an image without a way to start it")
    authentihash(source, read)


def pesignature(data: bytes) -> None:
    """A PKCS#7 structure on a sound file: what another key made never holds."""
    source = BytesSource(with_signatures(_PLAIN, data))
    for found in read_signatures(source, read_pe(source)):
        if found.verifies and found.signer is None:
            raise Fault("nobody's signature verifies")
        if not found.fault.isprintable():
            raise Fault("a fault that cannot be shown")


def pcrsig(data: bytes) -> None:
    """A PCR signature document, with a key that signed none of them."""
    for found in read_pcr_signatures(data, public_pem(signer())):
        if found.verifies:
            raise Fault("a policy of another key verifies")


def iso(data: bytes) -> None:
    """An image with its tree and what it boots."""
    disk = disk_of(data)
    volume = read_iso(disk)
    _look_into(volume)
    for entry in volume.boot.entries:
        try:
            if volume.open_boot_image(entry).size_bytes > disk.size_bytes:
                raise Fault("a boot image is larger than what holds it")
        except FormatError:
            continue


def _look_into(volume: Volume) -> None:
    paths = [entry.path for entry in volume.entries]
    if len(set(paths)) != len(paths):
        raise Fault("two entries have one path")
    if any(p.startswith("/") or ".." in p.split("/") or "" in p.split("/") for p in paths):
        raise Fault("a path that leads elsewhere")
    for entry in volume.entries[:_LOOKED_AT]:
        if entry.kind != "file":
            continue
        try:
            source = volume.open(entry)
            if source.size_bytes != entry.size_bytes:
                raise Fault("an entry has another size than its content")
            if source.size_bytes <= _MAX_CONTENT_BYTES:
                sha256_of(source)
        except FormatError:
            continue


def tarfile(data: bytes) -> None:
    """An archive with all of its members."""
    plain = mended(data)
    volume = read_tar(BytesSource(plain))
    if plain and plain[:512].strip(b"\0") and not is_tar(plain[:512]):
        raise Fault("an archive is not recognised")
    _look_into(volume)


def imagearchive(data: bytes) -> None:
    """Documents of an image archive; ``@digest@`` means what the next document hashes to."""
    volume = _documents(data)
    ova_of(volume)
    archive = image_archive_of(volume)
    if archive is not None:
        _check(archive)


def _check(archive: ImageArchive) -> None:
    for image in archive.images:
        if image.config_digest != f"sha256:{hashlib.sha256(image.config).hexdigest()}":
            raise Fault("a configuration under another digest")
        texts = (*image.names, image.architecture, *image.labels, *image.labels.values())
        if not all(text.isprintable() for text in texts):
            raise Fault("a text that cannot be shown")


def _documents(data: bytes) -> Volume:
    """Return a tar of what the input lists: ``name<newline>content``, each after a zero byte.

    A document without a name is a blob, and gets its digest for one.
    """
    previous, members = b"", b""
    for part in reversed(data.split(b"\0")[:32]):
        name, _, content = part.partition(b"\n")
        content = content.replace(_JSON_PLACE, previous)
        digest = hashlib.sha256(content).hexdigest().encode()
        if not name:
            name, previous = b"blobs/sha256/" + digest, b"sha256:" + digest
        header = bytearray(name[:100].ljust(100, b"\0") + bytes(24))
        header += b"%011o\0" % len(content) + bytes(12) + b" " * 8 + b"0"
        header = header.ljust(257, b"\0") + b"ustar"
        members += bytes(header.ljust(512, b"\0")) + content + bytes(-len(content) % 512)
    return read_tar(BytesSource(mended(members)))


HARNESSES: Final = (
    Harness("pe", pe),
    Harness("pesignature", pesignature),
    Harness("pcrsig", pcrsig),
    Harness("iso", iso, 32 * 1024),
    Harness("tarfile", tarfile, 32 * 1024),
    Harness("imagearchive", imagearchive),
)
