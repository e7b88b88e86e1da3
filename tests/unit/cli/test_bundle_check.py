"""``bundle check`` as a person uses it: options, exit codes, and what is said."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.inventory import render_inventory
from local_imager.deliver.bundle.form.signing import load_private_key, sign_manifest
from local_imager.schematic.parse import parse_schematic
from tests.bundlefiles import Sample
from tests.unit.deliver.bundle.nearbundles import (
    IMAGER,
    RICH,
    Near,
    in_parts,
    inventory,
    layer_of,
    leaving_out,
    rich,
    without,
)
from tests.unit.deliver.bundle.signkeys import KEYS, pem, public_pem
from tests.unit.sources.forge import REGISTRY, Signing

ISO = ("--asset", "metal-amd64.iso")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Near:
    return Near(tmp_path_factory.mktemp("near"))


@pytest.fixture
def near(upstream: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """The upstream, a settings file that trusts it, and a schematic, in the current folder."""
    (tmp_path / "s.yaml").write_bytes(RICH)
    (tmp_path / "upstream.pub").write_text(upstream.signing.pem)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[upstream]\nregistry = "{REGISTRY}"\n'
        f'[[trust]]\npattern = "{REGISTRY}/**"\nkey = "upstream.pub"\n'
    )
    monkeypatch.setenv("LOCAL_IMAGER_CONFIG", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return copy(upstream).at(tmp_path)


def write(near: Near, sample: Sample) -> list[str]:
    return [near.write(n, sample.part(n)) for n in range(1, len(sample.bundle.parts) + 1)]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_complete(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    sample = rich(near)
    assert run(["bundle", "check", "--schematic", "s.yaml", *write(near, sample)]) == 0
    text = said(capsys)
    lines = text.splitlines()
    assert lines[0].startswith("complete  metal-amd64.iso      v1.9.0  s.yaml  (")
    assert [line.split()[:2] for line in lines[:3]] == [
        ["complete", "metal-amd64.iso"],
        ["complete", "metal-amd64.raw.zst"],
        ["complete", "installer-amd64.tar"],
    ]
    assert "what is missing" not in text
    assert "far side   has an empty store, and builds on amd64" in text
    assert "signed by  nobody (not signed)" in text
    assert "note: there is no lock in it" in text
    assert not (near.folder / "data").exists()


def test_something_is_missing(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    roots = without(near.roots(near.requirements(parse_schematic(RICH))), "/gvisor:")
    files = write(near, near.bundle(roots))
    assert run(["bundle", "check", "--schematic", "s.yaml", *files]) == 1
    text = said(capsys)
    assert text.count("MISSING   ") == 3
    assert text.count(f"  extension  {REGISTRY}/siderolabs/gvisor:1.0@sha256:") == 1
    assert "      it is not in the bundle\n" in text
    what_to_do = "make the bundle with --schematic FILE (or --extensions siderolabs/gvisor)"
    assert f"\nwhat to do\n  {what_to_do}" in text
    assert "      for metal-amd64.iso, metal-amd64.raw.zst, installer-amd64.tar\n" in text


def test_a_part_is_missing(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    sample = in_parts(rich(near), layer_of(near, f"{IMAGER}:v1.13.0"))
    first, _ = write(near, sample)
    assert run(["bundle", "check", "--schematic", "s.yaml", *ISO, first]) == 1
    text = said(capsys)
    assert text.startswith("MISSING   part 2 of 2; it holds parts of ")
    assert "in part 2 of 2, not given here" in text


def test_damage(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    sample = rich(near)
    layer = layer_of(near, f"{REGISTRY}/siderolabs/installer:v1.9.0")
    data = bytearray(sample.part())
    data[bytes(data).index(sample.contents[layer])] ^= 1
    assert run(["bundle", "check", "--schematic", "s.yaml", near.write(1, bytes(data))]) == 3
    text = said(capsys)
    assert text.startswith("FAULTY    ")
    assert f"  bit-flip blobs/sha256/{layer.hex}: its bytes are not those" in text
    assert f"      affects {REGISTRY}/siderolabs/installer:v1.9.0\n" in text
    assert "\nwhat to do\n  copy the bundle once more" in text
    data = bytearray(sample.part())
    data[700] ^= 1
    assert run(["bundle", "check", near.write(1, bytes(data))]) == 3
    assert "its manifest is damaged" in said(capsys)


def test_a_refused_image(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    with (near.folder / "config.toml").open("a") as file:
        (near.folder / "other.pub").write_text(Signing().pem)
        file.write(f'[[trust]]\npattern = "{REGISTRY}/siderolabs/sbc"\nkey = "other.pub"\n')
    files = write(near, rich(near))
    assert run(["bundle", "check", "--schematic", "s.yaml", *ISO, *files]) == 3
    text = said(capsys)
    assert text.startswith("REFUSED   metal-amd64.iso  v1.9.0  s.yaml\n")
    assert "      signature-invalid: " in text


def test_the_bundles_signature_is_demanded_by_key(
    near: Near, capsys: pytest.CaptureFixture[str]
) -> None:
    (near.folder / "sign.key").write_bytes(pem(KEYS["ed25519"]))
    key = load_private_key(near.folder / "sign.key")
    (near.folder / "sign.pub").write_text(public_pem(key))
    sample = rich(near)
    files = write(near, sample)
    ask = ["bundle", "check", "--schematic", "s.yaml", *ISO, "--key", "sign.pub"]
    assert run([*ask, *files]) == 3
    assert "no signature file came with it" in capsys.readouterr().err
    (near.folder / "sig.json").write_bytes(sign_manifest(sample.manifest, key))
    assert run([*ask, "--signature", "sig.json", *files]) == 0
    assert f"signed by  {key.public.key_id} (bundles (flags))" in said(capsys)
    assert run([*ask[:-2], "--signature", "sig.json", *files]) == 0
    assert "nobody (there is a signature, but it was not judged)" in said(capsys)


def test_a_delta_and_what_the_far_side_has(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    base = layer_of(near, f"{IMAGER}:v1.9.0")
    files = write(near, rich(near, change=leaving_out(base)))
    (near.folder / "far.json").write_bytes(render_inventory(inventory(near, base)))
    ask = ["bundle", "check", "--schematic", "s.yaml", *ISO]
    assert run([*ask, *files]) == 1
    text = said(capsys)
    assert "has an empty store (the bundle is a delta: --have FILE says what is there)" in text
    assert text.count("say what is there with --have FILE") == 1
    assert run([*ask, "--have", "far.json", *files]) == 0
    text = said(capsys)
    assert "has what the inventory lists, and builds on amd64" in text
    assert "note: the bundle was made for another inventory" in text
    assert run([*ask, "--have", "none.json", *files]) == 2


def test_json(near: Near, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(near, rich(near))
    hosts = ["--host-arch", "amd64", "--host-arch", "arm64"]
    ask = ["bundle", "check", "--version", "v1.9.0", "--schematic", "s.yaml", *ISO, *hosts]
    assert run([*ask, "--json", *files]) == 1
    document: dict[str, Any] = json.loads(said(capsys))
    assert document["complete"] is False
    states = [(one["host_arch"], one["complete"]) for one in document["assets"]]
    assert states == [("amd64", True), ("arm64", False)]
    assert {one["role"] for one in document["assets"][1]["missing"]} == {
        "builder",
        "base",
        "overlay",
    }
    assert run([*ask, *files]) == 1
    assert "s.yaml  on arm64" in said(capsys)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--version", "1.9"], "1.9"),
        (["--asset", "metal-amd64.ios"], "not an asset name"),
        (["--schematic", "none.yaml"], "cannot read the schematic"),
        (["--key", "none.pub"], "cannot be read"),
        (["--signature", "none.json"], "there is no signature none.json"),
        (["none.tar"], "cannot be read"),
    ],
)
def test_a_question_that_cannot_be_asked(
    more: list[str], words: str, near: Near, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bundle", "check", *write(near, rich(near)), *more]) == 2
    assert words in capsys.readouterr().err
