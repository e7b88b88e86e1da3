"""A bundle of a later format: every command says so, and none calls it damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from local_imager.cli.main import run
from tests.bundlefiles import Member, written

MEDIA = "application/vnd.local-imager.bundle.v{}+json"


@pytest.mark.parametrize("said", [(2, 1), (1, 2), (3, 3)])
@pytest.mark.parametrize(
    "command",
    [
        ["verify", "new.tar"],
        ["verify", "new.tar", "old.txt"],
        ["import", "new.tar"],
        ["check", "new.tar", "--version", "v1.13.0"],
        ["inspect", "new.tar"],
        ["diff", "new.tar", "new.tar"],
    ],
    ids=" ".join,
)
def test_a_newer_bundle_is_not_called_damaged(
    command: Sequence[str],
    said: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    number, version = said
    manifest = json.dumps({"format": number, "mediaType": MEDIA.format(version), "new": []})
    (tmp_path / "new.tar").write_bytes(written([Member("bundle.json", manifest.encode())]))
    (tmp_path / "old.txt").write_text("no bundle\n" * 100)
    code = run(["-q", "--store", "store", "bundle", *command])
    told = capsys.readouterr()
    assert code == 2, told
    assert "is of a newer version" in told.err
    assert "made by a newer local-imager: use that version" in told.err
    assert "new.tar" in told.err
