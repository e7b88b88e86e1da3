"""The report on a terminal, the JSON document and its description."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from local_imager.deliver.compare.noise import ALL_NOISE
from local_imager.deliver.compare.report import report_lines, verdict_text
from local_imager.deliver.compare.verdict import Comparison
from local_imager.deliver.compare.walk import compare_trees
from tests.comparetrees import ID_B, Image, box, compared, leaf

DOCS = Path(__file__).parents[4] / "docs/compare.md"
CHANGED = compare_trees(
    Image().subject, Image("console=ttyS0", "v1.1.0", ID_B, "world", run=2).subject
)


def lines(comparison: Comparison) -> list[str]:
    return [line.text for line in report_lines(comparison)]


def test_the_report_names_what_differs_and_what_goes_with_it() -> None:
    said = lines(CHANGED)
    assert said[0].startswith("different: 3 differences, ")
    assert "1. extension tool  in EFI/EFI/Linux/Talos.efi/.initrd/segment 2/000.sqsh" in said
    assert "     - console=tty0" in said
    assert "     + console=ttyS0" in said
    assert any(line.startswith("     with it: ") and "schematic ID" in line for line in said)
    assert any(line.startswith("  cpio-times: time (3 times so)") for line in said)
    assert said[-1] == "expected: different, because the schematics differ, so the files have to"


def test_a_part_of_one_side_says_which() -> None:
    left, right = box("t", "tar", leaf("a", "1")), box("t", "tar", leaf("a", "1"), leaf("b", "2"))
    assert "1. file is on the right side only  in b" in lines(compared(left, right))
    assert "1. file is on the left side only  in b" in lines(compared(right, left))


def test_what_the_limit_hides_is_counted() -> None:
    left = box("t", "tar", *(leaf(f"f{n}", f"1{n}") for n in range(9)))
    right = box("t", "tar", *(leaf(f"f{n}", f"2{n}") for n in range(9)))
    result = compared(left, right, limit=4)
    assert verdict_text(result) == "different: 9 differences"
    assert "… and 5 more (--limit shows more of them)" in lines(result)


def test_no_line_steers_a_terminal() -> None:
    evil = "a\x1b[2J\nverdict: identical\r"
    left, right = box("t", "tar", leaf(evil, "1\n2")), box("t", "tar", leaf(evil, "1\x1b\n3"))
    assert all(line.isprintable() for line in lines(compared(left, right)))


@pytest.mark.parametrize("right", [Image(), Image(run=2), Image("console=ttyS0", run=2)])
def test_the_document_is_what_the_documentation_says(right: Image) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.S)
    schema = json.loads(block)
    document = json.loads(json.dumps(compare_trees(Image().subject, right.subject).as_dict()))
    jsonschema.validate(document, schema)
    wrong: list[dict[str, object]] = [{"extra": 1}, {"verdict": "equal"}, {"counts": {}}]
    for broken in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | broken, schema)


def test_the_documentation_lists_the_noise_of_the_program() -> None:
    text = DOCS.read_text().partition("<!-- noise")[2].partition("<!-- /noise -->")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{rule.code}` | {rule.what} | {rule.reason} |" for rule in ALL_NOISE]
