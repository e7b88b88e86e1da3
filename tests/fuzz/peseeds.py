"""Seeds for the harnesses of PE files, ISO images and archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Final

from tests.diskfiles import Sparse
from tests.fuzz.diskfiles import packed
from tests.isobytes import (
    REFERENCE,
    ROCK_RIDGE,
    ROOT,
    SECTOR,
    boot_entry,
    boot_record,
    boot_section,
    catalog,
    continued,
    descriptor,
    listing,
    make_iso,
    posix,
    record,
)
from tests.pebytes import (
    UKI_SECTIONS,
    make_pe,
    pcr_document,
    pkcs7,
    plain_hash,
    public_pem,
    sign_pe,
    signer,
)

Seed = tuple[str, str, bytes]
_SHORT: Final = tuple((name, content[:250]) for name, content in UKI_SECTIONS)


def pefiles() -> Iterator[Seed]:
    """Yield (harness, name, bytes)."""
    more = ((".pcrpkey", public_pem(signer("ec"))), (".pcrsig", pcr_document(signer())))
    profile = ((".profile", b"ID=two\n"), (".cmdline", b"x"))
    yield "pe", "uki", make_pe((*_SHORT[1:], *more, *profile))
    yield "pe", "narrow", make_pe(_SHORT[:2], wide=False)
    yield "pe", "signed", sign_pe(make_pe(_SHORT[:1]), signer("ec"))
    plain = make_pe(UKI_SECTIONS)
    for kind in ("rsa", "ec"):
        yield "pesignature", kind, pkcs7(plain_hash(plain), signer(kind))
    yield "pesignature", "plain", pkcs7(plain_hash(plain), signer("ec"), attributes=False)
    yield "pcrsig", "one", pcr_document(signer("ec"))
    yield from _images()
    yield from _archives()


def _images() -> Iterator[Seed]:
    long_name = b"NM\x09\x01\x01long"
    rest = b"NM\x09\x01\x00name"
    target = b"SL\x0e\x01\x00\x08\x00\x04\x00\x00\x03abc"
    records = (
        record(b"A.;1", 25, 40, use=posix(0o100644) + long_name + continued(26, 0, len(rest))),
        record(b"B", 0, 0, use=posix(0o120777) + target),
        record(b"C", 24, SECTOR, flags=2, use=posix(0o040755)),
        record(b"D", 25, 5, flags=0x80),
        record(b"D", 25, 5, use=b"TF\x0c\x01\x02" + bytes([119, 6, 1, 21, 34, 52, 0])),
        record(b"E", 0, 0, use=b"CL\x0c\x01" + b"\x18\0\0\0\0\0\0\x18"),
    )
    boot = catalog(boot_entry(25, 4), boot_section(0xEF, 1), boot_entry(26, 0))
    rock_ridge = {
        ROOT: listing(ROOT, records[:5], use=ROCK_RIDGE + REFERENCE),
        23: boot,
        24: listing(24, [record(b"F", 25, 7, use=b"RE\x04\x01")]),
        25: b"content " * 5,
        26: rest,
    }
    moved = rock_ridge | {ROOT: listing(ROOT, records[4:], use=ROCK_RIDGE + REFERENCE)}
    joliet = descriptor(2, 21, SECTOR, blocks=27, name="J".encode("utf-16-be"))
    joliet[88:91] = b"%/E"
    wide = {ROOT: listing(ROOT, []), 21: listing(21, [record("a;1".encode("utf-16-be"), 22, 3)])}
    plain = {ROOT: listing(ROOT, [record(b"A.B;1", 21, 3)]), 21: b"abc"}
    for name, data in (
        ("rockridge", make_iso(rock_ridge, extra=[boot_record(23)])),
        ("moved", make_iso(moved)),
        ("joliet", make_iso(wide | {22: b"abc"}, extra=[bytes(joliet)])),
        ("plain", make_iso(plain)),
    ):
        yield "iso", name, packed(Sparse(len(data), [(0, data)]))


def _archives() -> Iterator[Seed]:
    members = (
        ("a/", tarfile.DIRTYPE, b""),
        ("a/b", tarfile.REGTYPE, b"content\n"),
        ("link", tarfile.SYMTYPE, b"a/b"),
        ("long/" * 30, tarfile.LNKTYPE, b"a/b"),
    )
    for name, form in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for path, kind, content in members:
                info = tarfile.TarInfo(path)
                info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
                info.linkname = "" if kind == tarfile.REGTYPE else content.decode()
                archive.addfile(info, io.BytesIO(content))
        plain = buffer.getvalue().rstrip(b"\0")
        yield "tarfile", name, plain + bytes(-len(plain) % 512)
    info = tarfile.TarInfo("disk.raw")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    header[257:265] = b"ustar  \0"
    header[386:410] = b"%011o\0%011o\0" % (4096, 5)
    header[483:495] = b"%011o\0" % 8192
    yield "tarfile", "sparse", bytes(header) + b"bytes".ljust(512, b"\0")
    config = b'{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"b"}}}'
    docker = b'[{"Config":"c","RepoTags":["x:v1"],"Layers":["l"]}]'
    yield "imagearchive", "docker", b"manifest.json\n" + docker + b"\0c\n" + config + b"\0l\nx"
    manifest = b'{"config":{"digest":"@digest@"},"layers":[]}'
    index = b'{"manifests":[{"digest":"@digest@","annotations":{"io.containerd.image.name":"n"}}]}'
    parts = (b"oci-layout\n{}", b"index.json\n" + index, b"\n" + manifest, b"\n" + config)
    yield "imagearchive", "oci", b"\0".join(parts)
    parts = (b"oci-layout\n{}", b"index.json\n" + index, b"\n" + index, b"\n" + manifest)
    yield "imagearchive", "nested", b"\0".join((*parts, b"\n" + config))
    ova = (b"x.ovf\n<x/>", b"x.mf\nSHA256(x.ovf)= 00", b"x.vmdk\nKDMV")
    yield "imagearchive", "ova", b"\0".join(ova)
