"""Values of both sides as text for people: printable, bounded, texts as a diff."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.events import printable

# One value in a report. Longer ones are cut: the file itself is at hand.
MAX_VALUE_CHARS: Final = 400
MAX_LINE_CHARS: Final = 400
_VOLUMES: Final = frozenset({"fat", "xfs", "iso", "squashfs", "erofs", "cpio", "tar", "layer"})
# Of a directory that one side lacks, so many files are named.
_MAX_NAMES: Final = 6
_MAX_NAME_CHARS: Final = 60
# difflib takes time that grows with the square of the lines, and a hostile text may want that.
_MAX_DIFF_LINES: Final = 400
_MAX_SHOWN_LINES: Final = 120


def clean(untrusted: str, limit: int = MAX_VALUE_CHARS) -> str:
    """Return the text in one line without control characters, cut at ``limit`` characters."""
    return printable(untrusted, limit=limit)


def fact_text(value: Fact | None) -> str:
    """Return a fact as text; an empty one where it is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return clean(", ".join(value))
    return clean(str(value))


def mode_text(mode: int) -> str:
    """Return permission bits as ``ls`` writes them, with the octal number (``rwsr-xr-x 04755``)."""
    letters = ""
    for shift, special, mark in ((6, 0o4000, "s"), (3, 0o2000, "s"), (0, 0o1000, "t")):
        bits = mode >> shift
        executable = "x" if bits & 1 else "-"
        if mode & special:
            executable = mark if bits & 1 else mark.upper()
        letters += ("r" if bits & 4 else "-") + ("w" if bits & 2 else "-") + executable
    return f"{letters} 0{mode & 0o7777:o}"


def size_text(size_bytes: int) -> str:
    """Return a number of bytes with separators, as it can be compared by eye."""
    return f"{size_bytes:,} bytes" if size_bytes != 1 else "1 byte"


def content_text(part: Part) -> str:
    """Return what identifies a part's bytes: size and digest, and its kind where it says more."""
    kind = part.kind if part.kind not in ("data", "file", "document") else ""
    digest = clean(part.digest, 80)
    size = "" if part.kind in ("directory", "link", "special") else size_text(part.size_bytes)
    target = part.facts.get("link_target")
    arrow = f"to {fact_text(target)}" if target is not None else ""
    return ", ".join(piece for piece in (kind, arrow, size, digest) if piece)


def inventory_text(part: Part) -> str:
    """Return what a part on one side only is, and of what holds files, which ones.

    ``directory with 3 files: a, b/c, d, 1,234 bytes``; names from the directory inwards, a few.
    """
    content = part.facts.get("content", part.kind)
    if part.kind != "directory" and content not in _VOLUMES:
        return content_text(part)
    files = list(files_in(part))
    names = [clean(path, _MAX_NAME_CHARS) for path, _ in files[:_MAX_NAMES]]
    more = f" and {len(files) - len(names):,} more" if len(files) > len(names) else ""
    count = "1 file" if len(files) == 1 else f"{len(files):,} files"
    listed = f"{count}: {', '.join(names)}{more}" if files else "no files"
    if part.kind != "directory":
        return f"{content_text(part)}, with {listed}" if files else content_text(part)
    size = size_text(sum(one.size_bytes for _, one in files))
    return f"directory with {listed}, {size}" if files else f"directory with {listed}"


def files_in(part: Part, prefix: str = "") -> Iterator[tuple[str, Part]]:
    """Yield what a directory and those in it hold, with paths; not what lies in files."""
    for one in part.children:
        path = f"{prefix}{one.name}"
        if one.kind == "directory":
            yield from files_in(one, f"{path}/")
        else:
            yield path, one


def text_diff(left: str, right: str) -> str:
    """Return a unified diff without file names; long texts show the changed middle only.

    A text of one line is taken word by word, since that is how a command line differs.
    """
    first, second = _lines(left), _lines(right)
    if max(len(first), len(second)) == 1:
        first, second = left.split(), right.split()
    skipped, first, second = _trimmed(first, second)
    if max(len(first), len(second)) > _MAX_DIFF_LINES:
        lines = [f"@@ after {skipped} equal lines @@"]
        lines += [f"-{line}" for line in first[: _MAX_SHOWN_LINES // 2]]
        lines += [f"+{line}" for line in second[: _MAX_SHOWN_LINES // 2]]
        lines.append("… and more: the changed part is too long to show")
    else:
        lines = list(difflib.unified_diff(first, second, lineterm="", n=3))[2:]
        if skipped and lines:
            lines[0] = f"@@ after {skipped} equal lines @@"
    if len(lines) > _MAX_SHOWN_LINES:
        rest = len(lines) - _MAX_SHOWN_LINES
        lines = [*lines[:_MAX_SHOWN_LINES], f"… and {rest} lines more"]
    return "\n".join(clean(line, MAX_LINE_CHARS) for line in lines)


def _lines(text: str) -> list[str]:
    """Split at line feeds only: other line ends are differences that a diff has to show."""
    return text.split("\n")


def _trimmed(left: Sequence[str], right: Sequence[str]) -> tuple[int, list[str], list[str]]:
    """Cut what is equal at both ends, but for three lines around; say how many were skipped."""
    shortest = min(len(left), len(right))
    start = 0
    while start < shortest and left[start] == right[start]:
        start += 1
    end = 0
    while end < shortest - start and left[-1 - end] == right[-1 - end]:
        end += 1
    start, end = max(start - 3, 0), max(end - 3, 0)
    return start, list(left[start : len(left) - end]), list(right[start : len(right) - end])
