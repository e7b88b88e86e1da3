"""Harnesses for inspection as a whole: any file, and the list of extensions in an initramfs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from local_imager.cli.inspectlines import lines_of
from local_imager.deliver.inspect.extensions import read_extensions
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.limits import Limits
from local_imager.formats.source import BytesSource
from tests.fuzz.driver import Fault, Harness

_MIB: Final = 1 << 20
# As strict as the real ones, and small enough that an input ends within its ceiling of time.
_LIMITS: Final = Limits(
    parts=3000, stream_bytes=64 * _MIB, unpacked_bytes=96 * _MIB, written_bytes=32 * _MIB
)


def inspect(data: bytes) -> None:
    """A file of any kind: its parts, what they mean, and both ways to show it."""
    done = inspect_source(BytesSource(data), "file", limits=_LIMITS)
    for line in lines_of(done, parts=True):
        _check(line)
    json.dumps(done.as_dict())
    if sum(1 for _ in done.tree.walk()) > _LIMITS.parts:
        raise Fault("more parts than the limit")


def extensions(data: bytes) -> None:
    """The text of an ``extensions.yaml``; everything that cannot be read is a problem, told."""
    listed = read_extensions(data.decode(errors="replace"))
    _check(listed.problem)
    for extension in listed.extensions:
        for text in extension.as_dict().values():
            _check(text)


def _check(line: str) -> None:
    """Only our own colours may steer a terminal."""
    plain = line.replace("\x1b[", "")
    if any(not character.isprintable() for character in plain):
        raise Fault(f"a line with control characters: {line[:200]!r}")


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield (harness, name, bytes) of whole files to start from."""
    import gzip
    import lzma

    import zstandard

    from tests.diskfiles import gpt_disk, gpt_entry, small_fat32
    from tests.talosfiles import (
        SCHEMATIC,
        cpio,
        docker_archive,
        extensions_yaml,
        initramfs,
        kernel,
        meta,
        talos_disk,
        uki,
    )

    listed = extensions_yaml([("gvisor", "20250101.0"), ("modules.dep", "6.18.24-talos")])
    grub = b'menuentry "A" {\n linux /A/vmlinuz talos.platform=metal\n initrd /A/initramfs.xz\n}\n'
    yield "inspect", "uki", uki()
    yield "inspect", "initramfs", initramfs(listed)
    yield "inspect", "kernel", kernel()
    yield "inspect", "disk-zst", zstandard.compress(talos_disk(), 19)
    yield "inspect", "disk-xz", lzma.compress(talos_disk(uki(reset=False)))
    yield "inspect", "disk", gpt_disk(96, [gpt_entry(40, 41, "META")])[: 12 * 1024]
    yield "inspect", "fat-gz", gzip.compress(small_fat32({"GRUB.CFG": grub}), mtime=0)
    yield "inspect", "meta-gz", gzip.compress(meta({10: "value", 300: "x"}), mtime=0)
    yield "inspect", "installer", docker_archive({"usr/install/amd64/vmlinuz": kernel()})
    yield "inspect", "cpio", cpio({"a/extensions.yaml": listed, "grub.cfg": grub, "l": "../x"})
    environment = b"talos.environment=INSTALLER_META_BASE64=MHhjPTE="
    yield "inspect", "cmdline", b"talos.platform=metal " + environment
    yield "extensions", "plain", listed
    yield "extensions", "schematic", extensions_yaml([], SCHEMATIC)
    yield "extensions", "wrong-id", extensions_yaml([("a", "1")], SCHEMATIC, number="ab" * 32)


HARNESSES: Final = (
    Harness("inspect", inspect),
    Harness("extensions", extensions),
)
