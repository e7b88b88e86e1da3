"""Values and diffs as text: printable and bounded."""

from __future__ import annotations

import pytest

from local_imager.deliver.compare.factwords import time_text
from local_imager.deliver.compare.words import (
    content_text,
    fact_text,
    inventory_text,
    mode_text,
    text_diff,
)
from tests.comparetrees import box, folder, leaf


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (0o644, "rw-r--r-- 0644"),
        (0o4755, "rwsr-xr-x 04755"),
        (0o4644, "rwSr--r-- 04644"),
        (0o2755, "rwxr-sr-x 02755"),
        (0o1777, "rwxrwxrwt 01777"),
    ],
)
def test_modes(mode: int, text: str) -> None:
    assert mode_text(mode) == text


def test_a_line_is_taken_word_by_word() -> None:
    assert text_diff("a b c", "a x c").split("\n")[1:] == [" a", "-b", "+x", " c"]


def test_lines_are_taken_as_they_are() -> None:
    assert "-b\N{REPLACEMENT CHARACTER}" in text_diff("a\nb\r\nc", "a\nb\nc").split("\n")


def test_equal_begins_are_skipped() -> None:
    left = "\n".join(f"line {n}" for n in range(5000))
    lines = text_diff(left, left.replace("line 4000\n", "other\n")).split("\n")
    assert lines[0] == "@@ after 3997 equal lines @@"
    assert [line for line in lines if line[0] in "+-"] == ["-line 4000", "+other"]


def test_long_differences_are_cut_and_quick() -> None:
    left = "\n".join("ab"[n % 2] for n in range(30_000))
    right = "\n".join("ba"[n % 3 % 2] for n in range(30_000))
    lines = text_diff(left, right).split("\n")
    assert len(lines) <= 122
    assert lines[-1].startswith("…")
    assert all(len(line) < 500 for line in text_diff("x" * 60_000, "y" * 60_000).split("\n"))


def test_values_of_a_terminal_stay_in_their_line() -> None:
    assert fact_text("a\x1b[2J\nb").isprintable()
    assert fact_text(("a", "b\x07")) == "a, b\N{REPLACEMENT CHARACTER}"
    assert fact_text(True) == "yes"
    assert fact_text(None) == ""


def test_times() -> None:
    assert time_text(1559424892) == "2019-06-01 21:34:52 UTC"
    assert time_text(1 << 62) == str(1 << 62)


def test_what_one_side_lacks_says_which_files_are_in_it() -> None:
    inner = folder("b", leaf("c.efi", "12345"), folder("empty"))
    assert inventory_text(folder("a", inner, leaf("d\x1b", "1"))) == (
        "directory with 2 files: b/c.efi, d\N{REPLACEMENT CHARACTER}, 6 bytes"
    )
    many = folder("a", *(leaf(f"f{n}", "") for n in range(1007)))
    assert inventory_text(many) == (
        "directory with 1,007 files: f0, f1, f2, f3, f4, f5 and 1,001 more, 0 bytes"
    )
    assert inventory_text(folder("a", folder("b"))) == "directory with no files"
    volume = box("ESP", "partition", leaf("x", "1"), content="fat")
    assert inventory_text(volume).endswith(f"{volume.digest}, with 1 file: x")
    assert inventory_text(leaf("x", "1")) == content_text(leaf("x", "1"))
