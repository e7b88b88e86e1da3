"""``local-imager store inventory``: the document alone on standard output, or in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.inventory import (
    make_inventory,
    read_inventory,
    render_inventory,
)
from local_imager.store.store import Store
from tests.unit.store.test_store import put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    put(store)
    return store


def inventory(store: Store, *arguments: str) -> int:
    return run(["--quiet", "--store", str(store.path), "store", "inventory", *arguments])


def test_standard_output_is_the_document(
    store: Store, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert inventory(store) == 0
    assert capsysbinary.readouterr() == (render_inventory(make_inventory(store)), b"")
    assert inventory(store, "--names", "-o", "-") == 0
    assert capsysbinary.readouterr().out == render_inventory(make_inventory(store, names=True))


def test_a_file(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "far.json"
    assert inventory(store, "-o", str(path)) == 0
    made = make_inventory(store)
    assert read_inventory(path) == made
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"wrote {path}: {len(made.blobs)} blobs, ")


def test_a_file_is_replaced_only_when_asked(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "far.json"
    path.write_text("mine")
    assert inventory(store, "-o", str(path)) == 2
    assert path.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert inventory(store, "-o", str(path), "--force") == 0
    assert read_inventory(path) == make_inventory(store)


def test_a_folder_that_is_not_there(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventory(store, "-o", str(tmp_path / "none" / "far.json")) == 1
    assert "could not write" in capsys.readouterr().err
