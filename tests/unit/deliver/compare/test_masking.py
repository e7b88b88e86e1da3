"""Reports on files that hold a machine configuration: its text stands in none of them."""

from __future__ import annotations

import json
import lzma
import os
import stat
from pathlib import Path

import pytest
import zstandard

from local_imager.cli.main import run
from local_imager.deliver.compare.masking import NOT_SHOWN, holds_configuration, masked_meaning
from local_imager.deliver.compare.page import render_page
from local_imager.deliver.compare.report import report_lines
from local_imager.deliver.compare.verdict import Comparison, Verdict
from local_imager.deliver.compare.walk import Subject, compare_trees
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.formats.source import BytesSource
from tests.talosfiles import OS_RELEASE, SCHEMATIC, cpio, elf, extensions_yaml, initramfs

MASKED = "customization:\n    embeddedMachineConfiguration: '(not shown"


def configuration(token: str) -> str:
    return f"version: v1alpha1\nmachine:\n    token: {token}\n"


def schematic(token: str) -> str:
    lines = "".join(f"        {line}\n" for line in configuration(token).splitlines())
    return f"customization:\n    embeddedMachineConfiguration: |\n{lines}"


def image(token: str) -> bytes:
    """Return an initramfs that has the configuration in its schematic and as a file."""
    base = lzma.compress(cpio({"init": elf(), "etc/os-release": OS_RELEASE.encode()}), check=1)
    listed = extensions_yaml([("gvisor", "1")], schematic(token))
    files = {"extensions.yaml": listed, "etc/config.yaml": configuration(token).encode()}
    return base + bytes(-len(base) % 4) + zstandard.compress(cpio(files, mtime=1))


def compared(left: bytes, right: bytes) -> Comparison:
    sides = [inspect_source(BytesSource(data), name) for data, name in ((left, "a"), (right, "b"))]
    return compare_trees(Subject.of(sides[0], "a"), Subject.of(sides[1], "b"))


@pytest.mark.parametrize("right", [image("SECRET-TWO"), initramfs(extensions_yaml([("x", "1")]))])
def test_no_report_has_the_text_of_a_configuration(right: bytes) -> None:
    comparison = compared(image("SECRET-ONE"), right)
    assert comparison.verdict is Verdict.DIFFERENT
    reports = [
        json.dumps(comparison.as_dict()),
        render_page(comparison).decode(),
        "\n".join(line.text for line in report_lines(comparison)),
    ]
    assert not [text for text in reports if "SECRET" in text]


def test_that_a_configuration_differs_is_told_and_where() -> None:
    comparison = compared(image("SECRET-ONE"), image("SECRET-TWO"))
    (file,) = [one for one in comparison.differences if one.path.endswith("etc/config.yaml")]
    assert file.diff == NOT_SHOWN
    assert file.left != file.right
    assert comparison.as_dict()["left"]["meaning"]["schematic"].startswith(MASKED)


def test_other_fields_of_a_masked_schematic_stay() -> None:
    text = schematic("SECRET") + "    extraKernelArgs:\n        - console=ttyS0\n"
    shown = str(masked_meaning({"schematic": text})["schematic"])
    assert "console=ttyS0" in shown
    assert "SECRET" not in shown
    assert masked_meaning({"schematic": "- embeddedMachineConfiguration: SECRET"}) == {
        "schematic": NOT_SHOWN
    }
    assert masked_meaning({"schematic": SCHEMATIC})["schematic"] == SCHEMATIC


def test_a_configuration_in_meta_is_masked() -> None:
    meaning = masked_meaning({"meta": {"0xa": configuration("SECRET"), "0xc": "worker-1"}})
    assert meaning["meta"] == {"0xa": NOT_SHOWN, "0xc": "worker-1"}


@pytest.mark.parametrize("text", ["machine: {}", "# x\ncluster:\n  id: x", '{"a":1,"machine":{}}'])
def test_configurations_are_known_by_their_keys(text: str) -> None:
    assert holds_configuration(text)
    assert not holds_configuration("the machine: a word; NAME=cluster:1")


@pytest.mark.parametrize(("first", "mode"), [(image("SECRET"), 0o600), (cpio({"a": b"1"}), 0o644)])
def test_a_page_that_may_show_secrets_is_its_owners(
    first: bytes, mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(first)
    (tmp_path / "b").write_bytes(cpio({"a": b"2"}))
    page = tmp_path / "page.html"
    sides = [str(tmp_path / "a"), str(tmp_path / "b"), "--html", str(page)]
    assert run(["-q", "--store", str(tmp_path / "none"), "compare", *sides]) == 4
    assert stat.S_IMODE(os.stat(page).st_mode) == mode
    assert "SECRET" not in page.read_text() + capsys.readouterr().out
