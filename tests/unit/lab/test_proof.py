"""What `make proof` accepts as proven, and what makes it fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from lab import proof
from lab.console import LabError
from lab.demo import Program

NEWEST, OLDEST = proof.ROUNDS
ISO, DISK = "metal-amd64.iso", "nocloud-amd64.raw.xz"
MARKER = {"path": ".disk/1.uuid", "what": "name", "change": "noise", "noise": "grub-marker"}
SERIAL = {"path": "efi.img", "what": "serial", "change": "noise", "noise": "fat-serial"}
OTHER = {"path": "x", "what": "cpio time", "change": "noise", "noise": "cpio-times"}
REAL = {"path": "vmlinuz", "what": "content of the file", "change": "altered"}


def answered(
    monkeypatch: pytest.MonkeyPatch,
    asked: proof.Round,
    differing: dict[str, list[dict[str, str]]],
    *,
    status: int | None = None,
) -> None:
    """Let the program answer with these differences (other assets repeat), then run the round."""
    document: list[dict[str, Any]] = []
    for asset in asked.assets:
        found = differing.get(asset)
        answer = {
            "equal": found is None,
            "digest": "sha256:" + "ab" * 32,
            "varied": {"user": "2 in place of 1"},
            "kept": [],
            "verdict": "identical" if found is None else "different",
            "differences": found or [],
        }
        document.append({"asset": asset, "reproducible": answer})
    ended = (4 if differing else 0) if status is None else status

    def started(argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert argv[:3] == [sys.executable, "-m", "local_imager"]
        assert {"--json", "--verify-reproducible", "--rebuild"} <= set(argv)
        return subprocess.CompletedProcess(argv, ended, json.dumps(document))

    monkeypatch.setattr(subprocess, "run", started)
    proof.twice(Program(None, None), asked)


def test_all_the_same_bytes_is_proven(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in proof.ROUNDS:
        answered(monkeypatch, asked, {})
    assert capsys.readouterr().out.count("the same bytes") == 8


def test_the_oldest_iso_may_differ_by_the_marker_of_grub(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered(monkeypatch, OLDEST, {ISO: [MARKER, SERIAL]})
    said = capsys.readouterr().out
    assert "differs, only in what was named: fat-serial, grub-marker" in said
    assert said.count("the same bytes") == 2


@pytest.mark.parametrize(
    ("asked", "differing", "says"),
    [
        (OLDEST, {"installer-amd64.tar": [REAL]}, "installer-amd64.tar does not repeat"),
        (OLDEST, {DISK: [MARKER]}, "does not repeat"),
        (OLDEST, {ISO: [MARKER, REAL]}, "content of the file"),
        (OLDEST, {ISO: [MARKER, OTHER]}, "cpio time"),
        (OLDEST, {ISO: []}, "nothing says in what"),
        (NEWEST, {ISO: [MARKER]}, "does not repeat"),
    ],
)
def test_any_other_difference_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
    asked: proof.Round,
    differing: dict[str, list[dict[str, str]]],
    says: str,
) -> None:
    with pytest.raises(LabError, match=says):
        answered(monkeypatch, asked, differing)


def test_a_build_that_failed_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="status 1"):
        answered(monkeypatch, OLDEST, {}, status=1)
