"""``bundle verify``: files in any order, what it says of them, and its exit codes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.signing import load_private_key, sign_manifest
from tests.bundlefiles import IMAGES, Member, Sample, make_sample, packed, strange_header, written
from tests.unit.deliver.bundle.damages import at, drop, flip

SAMPLE = make_sample()
SPLIT = SAMPLE.split(
    [SAMPLE.whole("a1"), SAMPLE.segment("s1", 0, 50)],
    [SAMPLE.segment("s1", 50, 120)],
    [SAMPLE.whole("b1"), SAMPLE.whole("b2")],
)
ONE, TWO = IMAGES


@pytest.fixture(autouse=True)
def no_network_no_store_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket or a store was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("local_imager.store.store.Store.open", refuse)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Said:
    """What the command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Ask = Callable[..., Said]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def asking(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(["-q", "bundle", "verify", *arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return asking


def put(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


def put_set(sample: Sample = SPLIT, name: str = "site") -> list[str]:
    count = len(sample.bundle.parts)
    return [put(f"{name}.part{n}of{count}.tar", sample.part(n)) for n in range(1, count + 1)]


def broken() -> bytes:
    members = SAMPLE.members()
    flip(SAMPLE.member_of("a1"))(members)
    return written(members)


@pytest.fixture
def keys() -> tuple[str, bytes]:
    """A public key's file, and the signature of the sample by its other half."""
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = Path("site.key")
    path.touch(mode=0o600)
    path.write_bytes(pem)
    info = PublicFormat.SubjectPublicKeyInfo
    public = put("site.pub", private.public_key().public_bytes(Encoding.PEM, info))
    return public, sign_manifest(SAMPLE.manifest, load_private_key(path))


@pytest.mark.parametrize("pack", [bytes, packed], ids=["plain", "zstd"])
def test_an_intact_file(ask: Ask, pack: Callable[[bytes], bytes]) -> None:
    said = ask(put("site.tar", pack(SAMPLE.part())))
    assert said.code == 0 and said.err == ""
    assert said.out.startswith("intact  site.tar\n")
    assert "2 images: " in said.out and "nobody (not signed)" in said.out
    assert "no rule for bundles" in said.out
    assert os.listdir() == ["site.tar"]


def test_standard_input(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(put("site.tar", SAMPLE.part()), "rb") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert ask("-").code == 0
    assert ask("-", "-").code == 2


def test_a_faulty_file_names_fault_image_and_what_to_do(ask: Ask) -> None:
    said = ask(put("site.tar", broken()))
    assert said.code == 3
    assert "FAULTY  site.tar: 1 fault\n" in said.out
    assert f"bit-flip blobs/sha256/{SAMPLE.layers['a1'].short}…: " in said.out
    assert "(layer a1)" in said.out and f"affects {ONE}\n" in said.out
    assert "Copy what is damaged once more" in said.out
    assert "takes the 1 item that no fault touches" in said.out


def test_a_file_that_was_tampered_with_is_not_called_damaged_on_the_way(ask: Ask) -> None:
    members = SAMPLE.members()
    members.insert(4, Member("x", b"", strange_header("../../x", type=b"2", linkname="/etc")))
    said = ask(put("site.tar", written(members)))
    assert said.code == 3 and "somebody changed it" in said.out
    assert "hostile-path ../../x: " in said.out and "link ../../x: " in said.out
    assert "Copy what is damaged" not in said.out and "--partial" not in said.out


def test_json_has_everything(ask: Ask) -> None:
    said = ask(put("site.tar", broken()), "--json")
    (file,) = said.document["files"]
    assert said.code == 3 and said.document["good"] is False and file["intact"] is False
    (fault,) = file["faults"]
    assert fault["kind"] == "bit-flip" and fault["affects"] == [ONE]
    assert fault["member"] == SAMPLE.member_of("a1")
    (found,) = said.document["sets"]
    assert found["items"] == {"image": 2, "asset": 0, "document": 0}
    assert found["signed_by"] is None and found["refused"] is None
    assert ask(put("good.tar", SAMPLE.part()), "--json").document["good"] is True


def test_many_faults_are_shortened_for_people_only(ask: Ask) -> None:
    members = SAMPLE.members()
    members[4:4] = [Member(f"x{n}", b"") for n in range(90)]
    put("site.tar", written(members))
    said = ask("site.tar")
    assert "90 faults" in said.out and "… and 50 more" in said.out and "x89" not in said.out
    assert len(ask("site.tar", "--json").document["files"][0]["faults"]) == 90


# What is no bundle.


def test_what_is_no_bundle_is_bad_input(ask: Ask) -> None:
    said = ask(put("x.tar.gz", b"\x1f\x8b" + bytes(600)))
    assert said.code == 2 and "compressed with gzip" in said.err and "gunzip" in said.err
    assert ask("missing.tar").code == 2
    assert ask().code == 2
    document = ask("x.tar.gz", "--json").document
    assert document["error"]["code"] == "not-a-bundle"


def test_something_else_among_bundles_is_a_fault(ask: Ask) -> None:
    files = put("site.tar", SAMPLE.part()), put("notes.json", b'{"a":1}' * 100)
    said = ask(*files)
    assert said.code == 3
    assert "intact  site.tar" in said.out
    assert "no bundle  notes.json is not a bundle: it looks like a JSON" in said.out
    assert "is found by itself" in said.out


# Sets.


def test_a_set_in_any_order(ask: Ask) -> None:
    said = ask(*reversed(put_set()))
    assert said.code == 0
    assert said.out.index("part 1 of 3") < said.out.index("part 3 of 3")
    assert "complete  all 3 parts of the set are here and intact" in said.out
    assert said.out.count("identity") == 1


def test_a_missing_part_is_named_with_what_it_holds(ask: Ask) -> None:
    files = put_set()
    said = ask(files[0], files[1])
    assert said.code == 3
    assert f"MISSING  part 3 of 3; it holds parts of {TWO}\n" in said.out
    assert "Bring the missing parts" in said.out
    said = ask(files[0], files[2])
    assert f"MISSING  part 2 of 3; it holds parts of {ONE}, {TWO}\n" in said.out


def test_one_part_alone_can_be_verified(ask: Ask) -> None:
    files = put_set()
    said = ask(files[1], "--incomplete")
    assert said.code == 0
    assert "not given  part 1 of 3" in said.out and "Bring" not in said.out
    members = SPLIT.members(2)
    drop(SPLIT.bundle.parts[1][0].member)(members)
    assert ask(put("bad.tar", written(members)), "--incomplete").code == 3


def test_a_damaged_part_is_not_called_missing_as_well(ask: Ask) -> None:
    files = put_set()
    members = SPLIT.members(3)
    flip(SPLIT.member_of("b1"))(members)
    put(files[2], written(members))
    said = ask(*files)
    assert said.code == 3 and "MISSING" not in said.out and "complete" not in said.out
    assert "takes the 1 item that no fault touches" in said.out
    document = ask(*files, "--json").document
    (missing,) = document["sets"][0]["missing_parts"]
    assert missing == {"part": 3, "given_but_damaged": True, "items": [TWO]}


def test_a_second_copy_makes_up_for_a_damaged_one(ask: Ask) -> None:
    files = put_set()
    put("copy.tar", SPLIT.part(1)[:7000])
    said = ask(*files, "copy.tar")
    assert said.code == 3 and "complete  all 3 parts" in said.out
    assert "part 1 was given more than once" in said.out and "--partial" not in said.out
    assert ask(*files, put("copy.tar", SPLIT.part(1))).code == 0


def test_parts_of_different_sets_are_not_taken_for_one(ask: Ask) -> None:
    other = make_sample({"a1": b"x", "s1": b"y", "b1": b"z"})
    other = other.split([other.whole("a1"), other.whole("s1")], [other.whole("b1")])
    files = [put_set()[0], put_set(other, "other")[1]]
    said = ask(*files)
    assert said.code == 3 and "mixed  these files are of 2 different bundles" in said.out
    assert said.out.count("identity") == 2 and said.out.count("MISSING") == 3
    assert ask(*files, "--json").document["mixed_sets"] is True


def test_several_whole_bundles_are_judged_one_by_one(ask: Ask) -> None:
    other = make_sample({"a1": b"x"})
    said = ask(put("one.tar", SAMPLE.part()), put("two.tar", other.part()))
    assert said.code == 0 and "mixed" not in said.out and said.out.count("identity") == 2


def test_a_file_whose_manifest_is_destroyed_belongs_to_no_set(ask: Ask) -> None:
    members = SPLIT.members(2)
    members[0].content = b"[" + members[0].content[1:]
    files = put_set()
    put(files[1], written(members))
    said = ask(*files)
    assert said.code == 3 and "manifest bundle.json: " in said.out
    assert "MISSING  part 2 of 3" in said.out


# Signatures.


def test_a_signature_beside_the_file(ask: Ask, keys: tuple[str, bytes]) -> None:
    public, signature = keys
    put("site.tar", SAMPLE.part())
    said = ask("site.tar", "--key", public)
    assert said.code == 3 and "REFUSED" in said.out and "no signature file" in said.out
    assert "site.tar" in said.out and "intact  site.tar" in said.out
    put("site.tar.sigstore.json", signature)
    said = ask("site.tar", "--key", public)
    assert said.code == 0 and "signed by  key sha256:" in said.out
    unasked = ask("site.tar")
    assert unasked.code == 0 and "there is a signature, but it was not judged" in unasked.out
    document = ask("site.tar", "--key", public, "--json").document
    assert document["sets"][0]["signed_by"]["policy"] == "bundles (flags)"


def test_a_signature_named_on_the_command_line(ask: Ask, keys: tuple[str, bytes]) -> None:
    public, signature = keys
    put("site.tar", SAMPLE.part())
    given = ["--key", public, "--signature", put("elsewhere.json", signature)]
    assert ask("site.tar", *given).code == 0
    assert ask("site.tar", "--key", public, "--signature", "missing.json").code == 2


def test_a_signature_of_another_bundle_is_refused(ask: Ask, keys: tuple[str, bytes]) -> None:
    public, signature = keys
    put("site.tar", make_sample({"a1": b"x"}).part())
    put("site.tar.sigstore.json", signature)
    said = ask("site.tar", "--key", public)
    assert said.code == 3 and "another bundle" in said.out
    document = ask("site.tar", "--key", public, "--json").document
    assert document["sets"][0]["refused"]["message"] and document["good"] is False


def test_a_refused_signature_does_not_hide_faults(ask: Ask, keys: tuple[str, bytes]) -> None:
    said = ask(put("site.tar", broken()), "--key", keys[0])
    assert said.code == 3 and "REFUSED" in said.out and "bit-flip" in said.out
    assert "--partial" not in said.out


def test_the_signature_of_a_set_lies_beside_any_part(ask: Ask, keys: tuple[str, bytes]) -> None:
    key = load_private_key(Path("site.key"))
    put("site.tar.sigstore.json", sign_manifest(SPLIT.manifest, key))
    assert ask(*put_set(), "--key", keys[0]).code == 0


def test_a_rule_of_the_settings_demands_a_signature(ask: Ask, keys: tuple[str, bytes]) -> None:
    public, signature = keys
    config = Path("config", "local-imager")
    config.mkdir(parents=True)
    rule = f'[[trust]]\npattern = "bundles"\nkey = "{Path(public).resolve()}"\n'
    (config / "config.toml").write_text(rule)
    put("site.tar", SAMPLE.part())
    assert ask("site.tar").code == 3
    put("site.tar.sigstore.json", signature)
    assert ask("site.tar").code == 0


def test_a_damaged_manifest_is_not_judged_by_its_signature(
    ask: Ask, keys: tuple[str, bytes]
) -> None:
    members = SAMPLE.members()
    at(members, "part.json").content = at(members, "part.json").content.replace(b"1", b"2", 1)
    put("site.tar.sigstore.json", keys[1])
    said = ask(put("site.tar", written(members)), "--key", keys[0])
    assert said.code == 3 and "was not looked at" in said.out


def test_a_file_name_cannot_paint_the_terminal(ask: Ask) -> None:
    said = ask(put("a\x1b[31mb.tar", SAMPLE.part()))
    assert said.code == 0 and "\x1b" not in said.out
