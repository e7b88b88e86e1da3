"""What a machine boots, as parts: initramfs, kernel, unified kernel image, EFI programs."""

from __future__ import annotations

from dataclasses import replace

from local_imager.deliver.inspect.extensions import FILE_NAME, MAX_BYTES
from local_imager.deliver.inspect.limits import OutOfBudget
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.rest import ArchiveRest
from local_imager.deliver.inspect.volumes import clean, volume_parts
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.cpio import CpioReading
from local_imager.formats.entries import Entry
from local_imager.formats.initramfs import InitramfsSegment, segments
from local_imager.formats.source import BytesSource, FormatError, Slice, Source, stream

_CPIO_HEADER_BYTES = 110


def open_initramfs(walk: Walk, source: Source) -> Inside:
    """Return the segments of an initramfs; what stands before a damaged one is kept."""
    parts: list[Part] = []
    try:
        for segment in segments(source, max_bytes=walk.reader_bytes):
            parts.append(_segment(walk, source, segment))
    except OutOfBudget:
        raise
    except FormatError as error:
        if not parts:
            raise
        return Inside(children=tuple(parts), unread=error.message)
    return Inside(children=tuple(parts))


def _segment(walk: Walk, source: Source, segment: InitramfsSegment) -> Part:
    facts: dict[str, Fact] = {"packing": segment.packing or "none"}
    if segment.xz_check:
        facts["check"] = segment.xz_check
    with walk.unpacked(segment.unpacked()) as content:
        facts["unpacked_bytes"] = content.size_bytes
        volume = CpioVolume(content)
        facts["rest"] = volume.rest
        children = _with_long_list(walk, volume, volume_parts(walk, volume))
    stored = Slice(source, segment.offset, segment.size_bytes)
    inside = Inside(facts=facts, children=children)
    return walk.made(stored, f"segment {segment.number}", "cpio", inside, offset=segment.offset)


def _with_long_list(walk: Walk, volume: CpioVolume, children: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts of a segment with the text of a list of extensions beyond the usual size.

    The schematic stands in it, and in that a whole machine configuration may.
    """
    for number, part in enumerate(children):
        if part.name != FILE_NAME or part.text is not None or part.kind != "file":
            continue
        entry = next((one for one in volume.entries if one.path == FILE_NAME), None)
        if entry is not None and 0 < entry.size_bytes <= MAX_BYTES:
            text = volume.open(entry).read(0, entry.size_bytes).decode(errors="replace")
            whole = replace(part, kind="document", text=walk.kept(text))
            return (*children[:number], whole, *children[number + 1 :])
    return children


class CpioVolume:
    """The archives in an unpacked segment, as a volume with random access."""

    def __init__(self, content: Source) -> None:
        self._content = content
        self._offsets: dict[int, int] = {}
        entries = []
        seen = ArchiveRest()
        for found in CpioReading(stream(content)):
            entry = found.entry
            # The name is padded so that the content begins at a multiple of four.
            name_at = found.offset + _CPIO_HEADER_BYTES
            begin = name_at + found.header.name_bytes
            begin += -begin % 4
            end = begin + found.header.size_bytes
            padding = content.read(end, min(-end % 4, content.size_bytes - end))
            seen.add(found.header, content.read(name_at, begin - name_at), padding)
            if entry.path:
                self._offsets[id(entry)] = begin
                entries.append(entry)
        self.entries: tuple[Entry, ...] = tuple(entries)
        self.rest = seen.digest

    def open(self, entry: Entry) -> Source:
        """Return the content of an entry; see :class:`~local_imager.formats.entries.Volume`."""
        if entry.kind != "file":
            raise FormatError(f"a {entry.kind} has no content")
        if not entry.size_bytes:
            return BytesSource(b"")
        return Slice(self._content, self._offsets[id(entry)], entry.size_bytes)


def open_kernel(walk: Walk, source: Source) -> Inside:
    """Return what the headers of a kernel image say."""
    from local_imager.formats.kernel import read_kernel

    kernel = read_kernel(source)
    facts: dict[str, Fact] = {
        "format": kernel.format,
        "arch": kernel.arch,
        "version": clean(kernel.version),
        "efi_stub": kernel.efi_stub,
        "protocol": kernel.protocol,
        "packing": kernel.packing,
    }
    return Inside(facts={key: value for key, value in facts.items() if value != ""})
