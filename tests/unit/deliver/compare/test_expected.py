"""Which verdict equal inputs would give, and notes on builders."""

from __future__ import annotations

from typing import Any

import pytest

from local_imager.deliver.compare.expected import expected_verdict, notes_on
from local_imager.deliver.compare.verdict import Verdict

REPEATS = {"exact": False, "builder_image": "sha256:1", "builder": "v1.13.0"}
SIGNED = {"secure_boot": {"state": "signed"}}
EXTENDED = {"extensions": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("meaning", "made_by", "verdict"),
    [
        ({"kind": "kernel"}, None, Verdict.IDENTICAL),
        ({"kind": "cmdline"}, None, Verdict.IDENTICAL),
        ({"kind": "initramfs"} | EXTENDED, None, Verdict.NAMED_NOISE),
        ({"kind": "initramfs"}, None, Verdict.IDENTICAL),
        ({"kind": "iso"}, None, Verdict.NAMED_NOISE),
        ({"kind": "uki", "schematic_id": "a"}, None, Verdict.NAMED_NOISE),
        ({"kind": "uki"} | EXTENDED, REPEATS, Verdict.IDENTICAL),
        ({"kind": "uki"} | EXTENDED, REPEATS | {"exact": True}, Verdict.NAMED_NOISE),
        ({"kind": "disk"} | EXTENDED, REPEATS | {"varies": ["meta: x"]}, Verdict.NAMED_NOISE),
        ({"kind": "disk"} | EXTENDED, REPEATS | {"varies": []}, Verdict.IDENTICAL),
        ({"kind": "uki"} | EXTENDED | SIGNED, REPEATS, Verdict.NAMED_NOISE),
        ({"kind": "unknown"}, None, Verdict.IDENTICAL),
    ],
)
def test_expectation(
    meaning: dict[str, Any], made_by: dict[str, Any] | None, verdict: Verdict
) -> None:
    found, because = expected_verdict(meaning, meaning, made_by, made_by)
    assert found is verdict
    assert because


def test_other_inputs_have_to_differ() -> None:
    left = {"kind": "iso", "schematic_id": "a", "arch": "amd64"}
    verdict, because = expected_verdict(left, left | {"schematic_id": "b", "arch": "arm64"})
    assert verdict is Verdict.DIFFERENT
    assert because == "the architectures and schematics differ, so the files have to"
    assert expected_verdict(left | SIGNED, left | {"secure_boot": {"state": "unsigned"}})[0] is (
        Verdict.DIFFERENT
    )


def test_other_packing_is_at_best_the_same_content() -> None:
    left = {"kind": "kernel", "packing": ["zstd"]}
    assert expected_verdict(left, {"kind": "kernel"})[0] is Verdict.SAME_CONTENT
    disk = {"kind": "disk", "packing": ["zstd"]}
    assert expected_verdict(disk, {"kind": "disk"})[0] is Verdict.NAMED_NOISE


def test_different_imager_code_is_told() -> None:
    left, right = {"imager": {"stub": "systemd-stub 258"}}, {"imager": {"stub": "systemd-stub 259"}}
    (note,) = notes_on(left, right)
    assert note == (
        "the sides were made by different imager code (stub): systemd-stub 258 and systemd-stub 259"
    )
    times = {"imager": {"extensions_mtime": "1"}}, {"imager": {"extensions_mtime": "2"}}
    assert list(notes_on(*times)) == []
    (note,) = notes_on({}, {}, REPEATS, REPEATS | {"builder": "v1.14.0"})
    assert note == "the sides were made by different imager code: v1.13.0 and v1.14.0"
    assert list(notes_on(left, left, REPEATS, REPEATS)) == []


def test_what_could_not_be_told_is_a_note() -> None:
    unknown = {"unknown": [{"what": "schematic", "why": "no extensions\x1b"}]}
    (note,) = notes_on({}, unknown)
    assert note == ("right: schematic could not be told: no extensions\N{REPLACEMENT CHARACTER}")
