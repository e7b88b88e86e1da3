"""``local-imager bundle diff``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.inventory import Inventory, render_inventory
from local_imager.deliver.bundle.form.model import Bundle
from local_imager.oci.model import Digest
from tests.unit.deliver.bundle.samples import (
    IMAGER,
    SIGNER,
    TOOLS,
    as_delta,
    blob,
    changed,
    digest,
    head_bytes,
    in_two_parts,
    item,
    sample,
)


class Line:
    """Runs the command on files of one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def put(self, name: str, bundle: Bundle, number: int = 1) -> str:
        path = self._folder / name
        path.write_bytes(head_bytes(bundle, number))
        return str(path)

    def far(self, *blobs: str) -> str:
        had = {digest(name): 1 for name in blobs}
        path = self._folder / "far.json"
        path.write_bytes(render_inventory(Inventory(had)))
        return str(path)

    def text(self, *arguments: str, code: int) -> str:
        self._capsys.readouterr()
        found = run(["-q", "bundle", "diff", *arguments])
        output = self._capsys.readouterr()
        assert found == code, output
        return (output.out or output.err).replace(f"{self._folder}/", "")

    def json(self, *arguments: str, code: int) -> Any:
        return json.loads(self.text(*arguments, "--json", code=code))


@pytest.fixture
def line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(tmp_path, capsys)


def test_the_same_bundle(line: Line) -> None:
    a, b = line.put("a.tar", sample()), line.put("b.tar", sample())
    assert line.text(a, b, code=0) == "they are the same bundle\n"
    assert line.json(a, b, code=0)["equal"] is True


def test_two_parts_of_one_set(line: Line) -> None:
    files = [line.put(f"site.part{n}of2.tar", in_two_parts(), n) for n in (1, 2)]
    assert line.text(*files, code=0) == "they are parts of one bundle\n"


def test_a_newer_bundle(line: Line) -> None:
    layer = blob("new layer", 30_000)
    new = item("image", TOOLS.replace("v1.0.0", "v1.1.0"), blob("tools", 700, document=True), layer)
    old = sample()
    parts = ((*old.parts[0], replace(old.parts[0][0], blob=layer.digest, size_bytes=30_000)),)
    newer = replace(old, items=(*old.items, new), blobs=(*old.blobs, layer), parts=parts)
    newer = changed(newer, IMAGER, signer="a@b.test")
    a, b = line.put("a.tar", old), line.put("b.tar", newer)
    assert line.text(a, b, code=4).splitlines() == [
        f"image {IMAGER}, SIGNER: {SIGNER[:19]} → a@b.test",
        f"image {new.name}: new ({str(digest('tools'))[:19]})",
        "what b.tar brings and a.tar does not: 1 blob of 8, 29.3 KiB of 148.8 KiB (19.7 %)",
    ]
    document = line.json(a, b, code=4)
    assert [one["aspect"] for one in document["changes"]] == ["signer", "item"]
    assert document["lacking"]["missing"] == {"blobs": 1, "size_bytes": 30_000}
    assert document["verified"] is False


def test_the_same_content_spelt_apart(line: Line) -> None:
    other = replace(sample(), index=replace(sample().index, digest=Digest.of(b"another")))
    text = line.text(line.put("a.tar", sample()), line.put("b.tar", other), code=4)
    assert "they bring the same in the same form" in text
    assert text.endswith("what b.tar brings and a.tar does not: nothing\n")


def test_what_the_far_side_lacks(line: Line) -> None:
    far, file = (
        line.far("shared layer", "imager manifest", "imager layer"),
        line.put("b.tar", sample()),
    )
    text = line.text(far, file, code=4)
    assert text.splitlines() == [
        f"     700 B  image {TOOLS} (of 10.4 KiB)",
        "  39.6 KiB  asset 376567988ad3/v1.13.0/metal-amd64.iso",
        "the far side lacks of b.tar: 3 blobs of 6, 40.2 KiB of 119.2 KiB (33.7 %)",
    ]
    assert line.text(file, far, code=4) == text
    document = line.json(far, file, code=4)
    assert document["lacking"]["items"][0]["missing"] == {"blobs": 1, "size_bytes": 700}


def test_a_far_side_that_has_all(line: Line) -> None:
    names = ("imager manifest", "tools", "asset manifest")  # no store keeps the lock
    far = line.far(*names, "shared layer", "imager layer", "iso")
    delta = line.put("b.tar", as_delta())
    assert line.text(far, delta, code=0) == "the far side lacks of b.tar: nothing\n"
    assert line.json(far, delta, code=0)["equal"] is True


def test_what_cannot_be_compared(line: Line, tmp_path: Path) -> None:
    far, file = line.far("iso"), line.put("a.tar", sample())
    assert "both files are inventories" in line.text(far, far, code=2)
    assert "cannot be read" in line.text(file, str(tmp_path / "none.tar"), code=2)
    (tmp_path / "site.tar.sigstore.json").write_text("{}")
    text = line.text(file, str(tmp_path / "site.tar.sigstore.json"), code=2)
    assert "neither a bundle nor an inventory" in text
