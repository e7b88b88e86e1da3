"""``local-imager compare``: exit codes, report, JSON and page, over files made byte by byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from local_imager.cli.main import run
from tests.talosfiles import (
    CMDLINE,
    SCHEMATIC,
    extensions_yaml,
    initramfs,
    talos_disk,
    uki,
)

Compare = Callable[..., tuple[str, str]]


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    def comparing(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        argv = ["-q", "--store", str(tmp_path / "store"), "compare", *map(str, arguments)]
        found = run(argv)
        said = capsys.readouterr()
        assert found == code, said
        return said.out, said.err

    return comparing


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def saving(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return saving


Save = Callable[[str, bytes], Path]


def image(
    *, console: str = "ttyS1", version: str = "20250101.0", meta: str = "here", mtime: int = 1
) -> bytes:
    listed = extensions_yaml([("gvisor", version)], SCHEMATIC.replace("ttyS1", console))
    line = f"{CMDLINE} console={console}"
    found = uki(cmdline=line, initrd=initramfs(listed, mtime=mtime))
    return talos_disk(found, {10: meta})


def test_three_changes_of_a_disk_are_three_differences(compare: Compare, save: Save) -> None:
    left = save("a.raw", image())
    right = save("b.raw", image(console="ttyS2", version="20250202.0", meta="there", mtime=2))
    said, _ = compare(left, right, "--json", code=4)
    document = json.loads(said)
    rows = {
        (one["what"], one["left"], one["right"])
        for one in document["differences"]
        if one["change"] == "altered"
    }
    assert rows == {
        ("extension gvisor", "20250101.0", "20250202.0"),
        ("kernel argument console", "console=ttyS1", "console=ttyS2"),
        ("META key 0xa", "here", "there"),
    }
    assert document["verdict"] == "different"


def test_noise_passes_and_strict_does_not_let_it(compare: Compare, save: Save) -> None:
    left, right = save("a.raw", image()), save("b.raw", image(mtime=2))
    said, _ = compare(left, right)
    assert said.startswith("same but for named noise: in ")
    assert "cpio-times" in said
    compare(left, right, "--strict", code=4)


def test_packing_passes_and_strict_does_not_let_it(compare: Compare, save: Save) -> None:
    left = save("a.raw", image())
    right = save("a.raw.zst", zstandard.compress(image()))
    said, _ = compare(left, right)
    assert said.startswith("same content, packed differently\n")
    compare(left, right, "--strict", code=4)
    said, _ = compare(left, left, "--strict")
    assert said.startswith("identical bytes\n")


def test_bytes_in_a_gap_and_in_boot_code_are_named(compare: Compare, save: Save) -> None:
    plain = bytearray(image())
    left = save("a.raw", bytes(plain))
    plain[40 * 512 + 7] = 1  # between the table and the first partition
    said, _ = compare(left, save("gap.raw", bytes(plain)), code=4)
    assert "1. bytes outside of its parts of the disk\n" in said
    plain[40 * 512 + 7], plain[100] = 0, 1
    said, _ = compare(left, save("boot.raw", bytes(plain)), code=4)
    assert "1. unpartitioned space is on the right side only  in boot code" in said


def test_the_page_is_kept_unless_it_may_be_replaced(
    compare: Compare, save: Save, tmp_path: Path
) -> None:
    left, right = save("a", CMDLINE.encode()), save("b", f"{CMDLINE} quiet".encode())
    page = tmp_path / "page.html"
    _, said = compare(left, right, "--html", page, code=4)
    assert f"page: {page}" in said
    assert "kernel argument quiet" in page.read_text()
    _, said = compare(left, right, "--html", page, code=2)
    assert "exists already" in said
    compare(left, left, "--html", page, "--force")
    assert "identical bytes" in page.read_text()
    _, said = compare(left, right, "--html", tmp_path / "no/page", code=2)
    assert "there is no folder" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "page.html"]


def test_the_limit_cuts_and_says_so(compare: Compare, save: Save) -> None:
    left = save("a", CMDLINE.encode())
    right = save("b", f"{CMDLINE} one two three".encode())
    said, _ = compare(left, right, "--limit", 1, code=4)
    assert "different: 3 differences" in said
    assert "and 2 more" in said
    compare(left, right, "--limit", 0, code=2)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_two_sides_are_needed(compare: Compare, names: tuple[str, ...]) -> None:
    _, said = compare(*names, code=2)
    assert "name two sides" in said


def test_a_damaged_file_is_an_error_and_no_verdict(compare: Compare, save: Save) -> None:
    left = save("a.raw.zst", zstandard.compress(image()))
    right = save("b.raw.zst", left.read_bytes()[:-100])
    said, _ = compare(left, right, "--json", code=2)
    assert json.loads(said)["error"]["code"] == "damaged-file"
