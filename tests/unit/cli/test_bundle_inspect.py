"""``local-imager bundle inspect``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.manifest import render_bundle
from local_imager.deliver.bundle.form.model import Bundle
from local_imager.oci.model import Digest
from tests.unit.deliver.bundle.samples import (
    IMAGER,
    SIGNER,
    as_delta,
    changed,
    digest,
    head_bytes,
    in_two_parts,
    item,
    sample,
)


def put(folder: Path, bundle: Bundle, number: int = 1) -> str:
    path = folder / "site.tar"
    path.write_bytes(head_bytes(bundle, number))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = run(["-q", "bundle", "inspect", *arguments])
    output = capsys.readouterr()
    assert found == code, output
    return output.out or output.err


def test_a_bundle_in_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, sample())
    text = said(capsys, file)
    assert text.startswith(f"{file}: a bundle in one file\n")
    assert f"identity  {Digest.of(render_bundle(sample()))}" in text
    assert "verified  no, this is what the file says of itself (see `bundle verify`)" in text
    assert f"images (2), signed by {SIGNER[:19]}…\n" in text
    for phrase in (IMAGER, "base, builder  amd64", "local-imager.lock", "versions  v1.13.0"):
        assert phrase in text
    assert "  39.6 KiB  376567988ad3/v1.13.0/metal-amd64.iso\n" in text
    assert " 119.5 KiB  in 7 blobs that the items need\n" in text
    assert "the imager layer" in text
    assert "delta" not in text and "what the parts hold" not in text


def test_a_part_of_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, put(tmp_path, in_two_parts(), 2))
    assert ": part 2 of 2\n" in text
    _, _, parts = text.partition("what the parts hold, beside the documents\n")
    _, _, second = parts.partition("  58.6 KiB  part 2 (this file)\n")
    assert "metal-amd64.iso" in second.partition("\n\n")[0]


def test_a_delta(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, put(tmp_path, as_delta()))
    assert "   9.8 KiB  in 1 blob of them expected on the far side" in text
    assert "rebuilt there from 1.5 KiB of differences" in text
    assert str(digest("far.json")) in text
    assert "the iso (not in the bundle)" in text


def test_signers_that_differ_stand_with_their_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, put(tmp_path, changed(sample(), IMAGER, signer="a@b.test")))
    assert "images (2)\n" in text
    assert "            signed by a@b.test\n" in text
    assert f"            signed by {SIGNER[:19]}…\n" in text


def test_many_images_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = sample().blobs[0]
    images = [item("image", f"registry.example/image-{n}:v1", top) for n in range(250)]
    text = said(capsys, put(tmp_path, replace(sample(), items=(*sample().items, *images))))
    assert "images (252)" in text and "… and 52 more (--json lists all)" in text


def test_the_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, in_two_parts(), 2)
    document = json.loads(said(capsys, file, "--json"))
    assert document["verified"] is False
    assert (document["part"], document["parts"]) == (2, 2)
    assert document["set"] == str(Digest.of(render_bundle(in_two_parts())))
    assert document["tar_size_bytes"] == document["tar_sizes_bytes"][1] > 60_000
    assert document["images"][0]["name"] == IMAGER
    assert len(document["contents_of_parts"]) == 2


def test_the_manifest_as_it_is(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["bundle", "inspect", put(tmp_path, sample()), "--manifest"]) == 0
    assert capfdbinary.readouterr().out == render_bundle(sample())


def test_what_cannot_be_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, sample())
    assert "give one" in said(capsys, file, "--json", "--manifest", code=2)
    assert "cannot be read" in said(capsys, str(tmp_path / "none.tar"), code=2)
    (tmp_path / "note.txt").write_text("not a bundle at all" * 100)
    assert "not a bundle" in said(capsys, str(tmp_path / "note.txt"), code=2)
    Path(file).write_bytes(head_bytes(sample(), 1)[:-100])
    assert "damaged where it says what it holds" in said(capsys, file, code=1)
