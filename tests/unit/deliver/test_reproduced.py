"""The latest answer of --verify-reproducible is told of an asset; what is none says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.deliver.inspect.inspection import inspect_file
from local_imager.deliver.reproduced import ARTIFACT_REPRODUCTION, last_reproduction
from local_imager.oci.model import canonical_json
from local_imager.store.records import StoredAsset
from local_imager.store.store import Store
from tests.unit.store.test_store import put

OLD: dict[str, Any] = {
    "temporary_files_on_disk": False,
    "equal": False,
    "first_offset": 14,
    "verdict": "named-noise",
    "checked_at": "2026-01-01T00:00:00+00:00",
    "varied": {"store": "another, empty"},
    "kept": ["user: only root can choose another (1:1)"],
}
NEW = OLD | {"equal": True, "first_offset": None, "checked_at": "2026-01-02T00:00:00+00:00"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def asset(store: Store) -> StoredAsset:
    return put(store)


def attach(store: Store, asset: StoredAsset, document: object) -> None:
    data = document if isinstance(document, bytes) else canonical_json(document)
    store.add_referrer(asset, ARTIFACT_REPRODUCTION, data, "application/json")


def test_the_latest_answer_counts(store: Store, asset: StoredAsset) -> None:
    assert last_reproduction(store, asset) is None
    attach(store, asset, NEW)
    attach(store, asset, OLD)  # as after an import: the order of documents is not that of time
    found = last_reproduction(store, asset)
    assert found is not None and found.equal
    assert found.sentences() == [
        "2026-01-02T00:00:00+00:00: the same bytes",
        "varied: store",
        "not varied: user: only root can choose another (1:1)",
    ]


def test_equal_bytes_of_temporary_files_on_disk_are_told_so(
    store: Store, asset: StoredAsset
) -> None:
    attach(store, asset, NEW | {"temporary_files_on_disk": True})
    found = last_reproduction(store, asset)
    assert found is not None
    assert found.sentences()[0].endswith(
        "the same bytes, with temporary files on disk: not shown to repeat in memory"
    )


@pytest.mark.parametrize(
    "document",
    [b"", b"[1]", b"{", b"[" * 200_000, {}, {"equal": "yes"}],
)
def test_what_is_no_answer_says_nothing(store: Store, asset: StoredAsset, document: object) -> None:
    attach(store, asset, document)
    assert last_reproduction(store, asset) is None


def test_a_document_from_elsewhere_is_read_with_bounds(store: Store, asset: StoredAsset) -> None:
    odd = {"equal": False, "first_offset": 10**40, "verdict": 3, "varied": [], "kept": "x"}
    attach(store, asset, odd)
    found = last_reproduction(store, asset)
    assert found is not None
    assert (found.first_offset, found.verdict, found.kept, found.varied) == (None, "", (), {})
    assert found.sentences() == ["at a time that is not known: differs"]
    attach(store, asset, OLD | {"kept": ["\x1b[31m" + "x" * 1000] * 1000})
    found = last_reproduction(store, asset)
    assert found is not None and len(found.kept) == 20
    assert all("\x1b" not in one and len(one) < 400 for one in found.kept)


def test_store_show_and_inspect_tell_it(
    store: Store, asset: StoredAsset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect_file(asset.path, store=store).as_dict()["known"]["reproduced"] is None
    attach(store, asset, OLD)
    for command in (["store", "show", asset.name], ["inspect", asset.name]):
        options = ["--quiet", "--store", str(store.path)]
        assert run([*options, *command]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "built again 2026-01-01T00:00:00+00:00: differs from byte 14 on" in text
        assert "(named-noise)" in text and "varied: store" in text
        assert run([*options, *command, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        told = document.get("known", document)["reproduced"]
        assert told == {name: OLD[name] for name in told}
        assert told["equal"] is False
