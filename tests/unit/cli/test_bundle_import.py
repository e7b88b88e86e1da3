"""``bundle import``: what a person reads, what a program gets, and the exit codes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.oci.model import Digest
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide, flip

POLICY = """\
[[trust]]
pattern = "upstream.test/**"
key = "images.pub"
"""
BUNDLES = """\
[[trust]]
pattern = "bundles"
key = "bundles.pub"
"""


@dataclass(frozen=True)
class Said:
    """What the command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def lines(self, word: str) -> list[str]:
        return [line for line in self.out.splitlines() if line.startswith(word)]


Ask = Callable[..., Said]


@pytest.fixture
def near(tmp_path: Path) -> NearSide:
    near = NearSide(tmp_path)
    near.image("siderolabs/imager")
    (tmp_path / "images.pub").write_text(near.signing.pem)
    (tmp_path / "bundles.pub").write_text(near.vouching.pem)
    (tmp_path / "config.toml").write_text(POLICY + BUNDLES)
    return near


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def asking(*arguments: object, command: str = "import") -> Said:
        capsys.readouterr()
        options = ["-q", "--config", str(tmp_path / "config.toml"), "--store", "far"]
        code = run([*options, "bundle", command, *map(str, arguments)])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return asking


def test_an_import_and_its_report(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    near.asset(b"iso")
    near.document("site.lock", b"lock")
    said = ask(*near.write())
    assert said.code == 0 and said.err == ""
    assert said.lines("imported   upstream.test/siderolabs/imager:v1  ")
    assert said.lines("imported   555555555555/v1.13.0/metal-amd64.iso  ")
    assert said.lines("carried    site.lock") and "(--documents DIR writes them out)" in said.out
    assert said.lines("Images and assets: 2 imported.")
    (place,) = (tmp_path / "out" / "reports").glob("*.json")
    assert f"SHA-256 {Digest.of(place.read_bytes()).hex}" in said.out
    assert Digest.of(place.read_bytes()).hex in place.with_suffix(".html").read_text()
    again = ask(*near.write())
    assert again.code == 0 and again.lines("present    all its images and assets, in the store")


def test_parts_as_they_arrive(near: NearSide, ask: Ask) -> None:
    near.image("siderolabs/large", size_bytes=200_000)
    files = near.write(parts=3)
    first = ask(files[0])
    assert first.code == 0
    assert first.lines("waits      upstream.test/siderolabs/large:v1")
    (missing,) = first.lines("missing    part 2 of 3")
    assert "siderolabs/large:v1" in missing
    assert "To come: parts 2, 3 of 3." in first.out
    assert "Import the other parts as they arrive" in first.out
    last = ask(*files[1:])
    assert last.code == 0 and not last.lines("missing") and not last.lines("waits")


def test_what_policy_refuses_is_said_with_reason_and_remedy(near: NearSide, ask: Ask) -> None:
    near.image("siderolabs/evil", signed=False)
    said = ask(*near.write())
    assert said.code == 3
    assert said.lines("REFUSED    upstream.test/siderolabs/evil:v1")
    assert "no-signature: " in said.out and "the policy has to name its signer" in said.out
    assert said.lines("imported   upstream.test/siderolabs/imager:v1")
    assert "1 imported, 1 refused" in said.out and "[[trust]]" in said.out


def test_faults_are_named_with_what_to_do(near: NearSide, ask: Ask) -> None:
    near.image("siderolabs/other", {"x": os.urandom(5000)})
    (path,) = near.write()
    layers = [blob for blob in near.contents().blobs if "layer" in blob.purpose]
    flip(path, near.blob(near.contents(), layers[1].digest)[100:200])
    said = ask(path)
    assert said.code == 3
    assert said.lines(f"DAMAGED  {path.name}: 1 fault")
    assert "affects upstream.test/siderolabs/other:v1" in said.out
    assert said.lines("kept back  upstream.test/siderolabs/imager:v1")
    assert "--partial takes at once what no fault touches" in said.out
    assert "Copy the damaged files once more" in said.out
    partial = ask(path, "--partial", "--json")
    assert partial.code == 3
    (report,) = partial.document["imports"]
    assert [item["state"] for item in report["items"]] == ["imported", "faulty"]
    assert Path(report["report"]["json"]).exists()


def test_a_signature_that_is_demanded(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    files = near.write()
    signature = tmp_path / "site.tar.sigstore.json"
    moved = signature.rename(tmp_path / "elsewhere.json")
    said = ask(*files)
    assert said.code == 3 and "no signature file came with it" in said.err
    assert "--signature" in said.err and not (tmp_path / "out").exists()
    assert ask(*files, "--signature", moved, "--dry-run").code == 0
    assert ask(*files, "--signature", moved, "--key", "images.pub").code == 3
    assert ask(*files, "--signature", moved, "--key", "bundles.pub").code == 0


def test_nobody_vouches(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    near.asset(b"iso")
    (tmp_path / "config.toml").write_text(POLICY)
    said = ask(*near.write(signed=False))
    assert said.code == 3
    assert said.lines("signed  nobody vouches for the bundle's assets and documents")
    assert said.lines("REFUSED    555555555555/v1.13.0/metal-amd64.iso")
    assert "unvouched: " in said.out
    allowed = ask(*near.write(signed=False), "--allow-unsigned-assets")
    assert allowed.code == 0
    assert allowed.lines("imported   555555555555") and "nobody (--allow" in allowed.out


def test_a_dry_run_makes_nothing_at_all(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    files = near.write()
    before = {path.name for path in tmp_path.iterdir()}
    said = ask(*files, "--dry-run")
    assert said.code == 0 and said.lines("ready      upstream.test/siderolabs/imager:v1")
    assert "Dry run, nothing was written." in said.out
    assert {path.name for path in tmp_path.iterdir()} == before
    reported = ask(*files, "--dry-run", "--report", "seen")
    assert reported.code == 0 and len(list((tmp_path / "seen").iterdir())) == 2
    assert not (tmp_path / "far").exists()


def test_documents_and_a_signed_report(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    near.document("site.lock", b"lock")
    files = near.write()
    said = ask(*files, "--documents", "papers", "--sign-key", "vouching.key", "--report", "r")
    assert said.code == 0 and said.lines("written    site.lock")
    assert (tmp_path / "papers" / "site.lock").read_bytes() == b"lock"
    assert "        signature r/import-" in said.out
    (tmp_path / "papers" / "site.lock").write_bytes(b"mine")
    refused = ask(*files, "--documents", "papers")
    assert refused.code == 2 and "not done: papers/site.lock is there already" in refused.out
    assert "--force" in refused.out
    assert ask(*files, "--documents", "papers", "--force").code == 0


def test_a_key_that_cannot_sign_is_told_before_anything_is_read(
    near: NearSide, ask: Ask, tmp_path: Path
) -> None:
    said = ask(*near.write(), "--sign-key", "images.pub")
    assert said.code == 2 and not (tmp_path / "far").exists()


def test_a_file_that_is_no_bundle(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello" * 500)
    assert ask("notes.txt").code == 2
    assert ask("typo.tar").code == 2
    said = ask()
    assert said.code == 2 and "FILE" in said.err


def test_a_file_that_does_not_say_what_it_is(near: NearSide, ask: Ask) -> None:
    (path,) = near.write()
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(bytes(data))
    said = ask(path)
    assert said.code == 3 and "it does not say of which bundle it is" in said.out
    document = ask(path, "--json").document
    assert document["imports"] == [] and document["unknown_files"][0]["faults"]


def test_a_hold_is_told_by_the_collector_and_given_up_by_name(
    near: NearSide, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    near.image("siderolabs/large", size_bytes=200_000)
    files = near.write(parts=3)
    ask(files[0])

    def store(*arguments: str) -> str:
        capsys.readouterr()
        assert run(["-q", "--store", "far", "store", *arguments]) == 0
        return capsys.readouterr().out

    (line,) = [one for one in store("gc").splitlines() if one.startswith("held")]
    name = line.split()[1].rstrip(":")
    assert name.startswith("local-imager/incoming/") and f"store rm {name}" in line
    assert name not in store("ls", "--images")
    assert f"removed  {name}" in store("rm", name)
    assert json.loads(store("gc", "--json"))["held"] == []
    opened = Store.open(Path("far"))
    assert all(
        not entry.ref_name.startswith("local-imager/inc") for entry in opened.layout.entries()
    )


def test_no_name_of_a_file_moves_the_cursor(near: NearSide, ask: Ask) -> None:
    (path,) = near.write("\x1b[31msite.tar")
    path.write_bytes(path.read_bytes()[:-2000])
    said = ask(path)
    assert said.code == 3 and "[31msite.tar: " in said.out
    assert "\x1b[31msite" not in said.out + said.err


def test_a_name_that_moves_is_told_everywhere(near: NearSide, ask: Ask, tmp_path: Path) -> None:
    near.asset(b"first")
    ask(*near.write())
    old = [str(root.descriptor.digest) for root in near.images]
    old += [str(root.entry.digest) for root in near.assets]
    near.images.clear()
    near.assets.clear()
    near.image("siderolabs/imager", {"x": b"another"})
    near.image("siderolabs/further")
    near.asset(b"second")
    files = near.write("newer.tar")
    document = ask(*files, "--dry-run", "--json").document["imports"][0]
    assert [item["replaces"] for item in document["items"]] == [old[0], "", old[1]]
    said = ask(*files)
    assert said.code == 0
    assert [line.strip() for line in said.lines("           was ")] == [
        f"was {digest} before" for digest in old
    ]
    (page,) = [
        p for p in (tmp_path / "out" / "reports").glob("*.html") if "before</span>" in p.read_text()
    ]
    assert all(digest in page.read_text() for digest in old)
    (found,) = [json.loads(p.read_text()) for p in [page.with_suffix(".json")]]
    assert [item["replaces"] for item in found["items"]] == [old[0], "", old[1]]
    said = ask(*files)
    assert "before" not in said.out + said.err


@pytest.mark.parametrize("command", ["verify", "check", "import"])
def test_signatures_that_the_shell_names_along_are_no_bundles(
    near: NearSide, ask: Ask, command: str
) -> None:
    near.write(parts=2)
    files = sorted(str(path) for path in Path().glob("site*.tar*"))
    assert "site.tar.sigstore.json" in files
    said = ask(*files, command=command)
    assert said.code == (1 if command == "check" else 0), said.out
    assert "no bundle" not in said.out + said.err


def test_a_signature_alone_is_no_bundle(near: NearSide, ask: Ask) -> None:
    near.write()
    assert ask("site.tar.sigstore.json", command="verify").code == 2
    assert ask("site.tar.sigstore.json", command="check").code == 2


@pytest.mark.parametrize("command", ["verify", "import", "check"])
def test_what_looks_wrong_in_the_policy_is_told_once(
    near: NearSide, ask: Ask, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    loose = 'pattern = "loose.test/**"\nissuer = "https://i.test"\nidentity_regexp = "a"\n'
    config.write_text(f"{POLICY}{BUNDLES}[[trust]]\n{loose}")
    options = ["--progress", "plain", "--config", str(config), "--store", "far"]
    run([*options, "bundle", command, *map(str, near.write())])
    assert capsys.readouterr().err.count("open at both ends") == 1
