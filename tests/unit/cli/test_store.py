"""``local-imager store``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.cli.sizes import human_size
from local_imager.store.records import StoredAsset
from local_imager.store.store import Store
from tests.unit.store.test_store import put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def asset(store: Store) -> StoredAsset:
    return put(store)


class Line:
    """Runs commands on one store and reads what they print."""

    def __init__(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        self._store, self._capsys = store, capsys
        self.error = ""

    def text(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        found = run(["--quiet", "--store", str(self._store.path), "store", *arguments])
        said = self._capsys.readouterr()
        assert found == code, said
        self.error = said.err
        return said.out

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.text(*arguments, "--json", code=code))


@pytest.fixture
def line(store: Store, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(store, capsys)


def test_ls(line: Line, asset: StoredAsset) -> None:
    assert "555555555555/v1.13.0/metal-amd64.iso" in line.text("ls")
    (listed,) = line.json("ls")["assets"]
    assert listed == asset.as_dict()


def test_ls_of_an_empty_store(line: Line) -> None:
    assert line.text("ls") == ""
    assert "no assets yet" in line.error


def test_show(line: Line, asset: StoredAsset, store: Store) -> None:
    store.add_referrer(asset, "application/x-record", b"{}", "application/json")
    shown = line.json("show", asset.name)
    assert shown["intact"] is True
    assert [one["type"] for one in shown["attached"]] == ["application/x-record"]
    assert str(asset.digest) in line.text("show", "555/v1.13.0/metal-amd64.iso")
    line.text("show", "nothing", code=2)
    assert "store ls" in line.error


def test_export(line: Line, asset: StoredAsset, tmp_path: Path) -> None:
    done = line.json("export", asset.name, str(tmp_path / "out") + "/")
    assert Path(done["path"]).read_bytes() == b"an image"
    assert sorted(os.listdir(tmp_path / "out")) == ["metal-amd64.iso", "metal-amd64.iso.sha256"]
    (tmp_path / "mine").write_text("x")
    line.text("export", asset.name, str(tmp_path / "mine"), code=2)
    assert "--force" in line.error
    assert "copy" in line.text("export", asset.name, str(tmp_path / "mine"), "--force", "--copy")


def test_rm(line: Line, asset: StoredAsset) -> None:
    assert asset.name in line.text("rm", "555/v1.13.0/metal-amd64.iso")
    assert not asset.path.exists()
    line.text("rm", asset.name, code=2)


def test_gc(line: Line, asset: StoredAsset) -> None:
    planned = line.json("gc", "--max-size", "0", "--dry-run")
    assert planned["dry_run"] and planned["names"] == [asset.name]
    assert line.json("gc", "--keep-days", "1")["names"] == []
    assert "would remove" in line.text("gc", "--max-size", "1B", "--dry-run")
    assert asset.path.exists()
    assert line.json("gc", "--max-size", "0.5KiB")["names"] == [asset.name]
    assert not asset.path.exists()


@pytest.mark.parametrize("size", ["", "x", "-5", "5 apples", "1e9"])
def test_a_size_that_is_none(line: Line, size: str) -> None:
    line.text("gc", "--max-size", size, code=2)


def test_fsck(line: Line, asset: StoredAsset) -> None:
    assert line.json("fsck")["clean"] is True
    asset.path.chmod(0o600)
    asset.path.write_bytes(b"AN IMAGE")
    report = line.json("fsck", code=1)
    assert [fault["subject"] for fault in report["faults"]] == [str(asset.digest)]
    assert "bytes: " in line.text("fsck", code=1)
    assert "repaired: " in line.text("fsck", "--repair")
    assert line.text("fsck").startswith("clean")


def test_a_store_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert run(["--store", str(tmp_path / "file"), "store", "ls"]) == 1
    assert "is a file, not a store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert human_size(size) == shown
