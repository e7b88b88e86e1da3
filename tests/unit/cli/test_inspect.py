"""``local-imager inspect``: what it prints, what it takes, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from local_imager.cli.main import run
from local_imager.store.records import AssetRecord
from local_imager.store.store import Store
from tests.pebytes import sign_pe, signer
from tests.talosfiles import (
    CMDLINE,
    SCHEMATIC,
    SCHEMATIC_ID,
    cpio,
    extensions_yaml,
    initramfs,
    kernel,
    talos_disk,
    uki,
)

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def inspecting(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        argv = ["--store", str(tmp_path / "store"), "inspect", *map(str, arguments)]
        found = run(argv)
        said = capsys.readouterr()
        assert found == code, said
        return said.out, said.err

    return inspecting


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a b.raw.zst"
    path.write_bytes(zstandard.compress(talos_disk()))
    return path


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_what_counts_is_said_first(inspect: Run, image: Path) -> None:
    said, _ = inspect(image)
    lines = said.splitlines()
    assert lines[0] == "a b.raw.zst"
    assert lines[1] == "  Talos v1.13.0 disk image for metal, amd64"
    for line in (
        f"  schematic    {SCHEMATIC_ID}",
        "  boots with   UEFI (systemd-boot)",
        "  secure boot  not signed",
        "  kernel       6.18.24-talos",
        "  gvisor  20250101.0  Sidero Labs",
        f"  {CMDLINE}",
        "  systemd-boot  Talos (v1.13.0) (Reset system disk)  +talos.experimental.wipe=system",
        "  0xa  metal network configuration  ten",
        "  local-imager inspect 'a b.raw.zst' --schematic > schematic.yaml",
        "  local-imager build schematic.yaml metal-amd64.raw.zst --version v1.13.0",
    ):
        assert line in lines, said
    assert "".join(f"  {line}\n" for line in SCHEMATIC.splitlines()) in said
    assert "parts inside: --parts shows them" in lines[-1]


def test_the_tree_of_parts(inspect: Run, image: Path) -> None:
    said, _ = inspect(image, "--parts")
    assert "segment 1" in said and "profile reset/" in said and "partition: fat" in said
    assert max(map(len, said.splitlines())) < 130
    cut, _ = inspect(image, "--depth", "2")
    assert "META" in cut and "segment 1" not in cut
    assert "more parts (a larger --depth shows them)" in cut


def test_json(inspect: Run, image: Path) -> None:
    document = json.loads(inspect(image, "--json")[0])
    assert document["format"] == "local-imager/inspection/v1"
    assert (document["kind"], document["packing"]) == ("disk", ["zstd"])
    assert document["remake"]["command"].endswith("metal-amd64.raw.zst --version v1.13.0")
    assert document["parts"]["children"][0]["name"] == "content"
    cut = json.loads(inspect(image, "--json", "--depth", "2")[0])["parts"]["children"][0]
    assert [part["name"] for part in cut["children"]] == ["EFI", "META"]
    assert cut["children"][1]["parts_below"] == 1 and "children" not in cut["children"][1]


def test_the_schematic_alone(inspect: Run, image: Path, tmp_path: Path) -> None:
    assert inspect(image, "--schematic") == (SCHEMATIC, "")
    bare = tmp_path / "bare.efi"
    bare.write_bytes(uki(cmdline=f"{CMDLINE} mine=1", initrd=initramfs()))
    said, error = inspect(bare, "--schematic")
    assert "- mine=1" in said and error.startswith("this schematic is a guess: put together from")
    plain = tmp_path / "kernel"
    plain.write_bytes(kernel())
    _, error = inspect(plain, "--schematic", code=2)
    assert "the file shows no schematic" in error
    inspect(plain, "--schematic", "--json", code=2)


def listed(text: str, number: str = "") -> bytes:
    """Return an initramfs whose list of extensions carries this text as its schematic."""
    number = number or hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    layer = {"image": "9.sqsh", "metadata": {"name": "schematic", "version": number}}
    layer["metadata"]["extraInfo"] = text  # type: ignore[index]
    return initramfs(json.dumps({"layers": [layer]}).encode())


@pytest.mark.parametrize("evil", ["\x1b]0;title\x07", "\x9b2J", "\u202e", "\r"])
def test_a_schematic_cannot_alter_the_terminal(inspect: Run, tmp_path: Path, evil: str) -> None:
    path = tmp_path / "initramfs"
    path.write_bytes(listed(f"customization: {{}}\n# {evil}"))
    said, error = inspect(path, "--schematic", code=2)
    assert said == "" and "holds control characters" in error
    said, _ = inspect(path, "--json")
    assert evil not in said and json.loads(said)["schematic"].endswith(evil)


def test_a_schematic_without_its_id_is_refused(inspect: Run, tmp_path: Path) -> None:
    path = tmp_path / "initramfs"
    path.write_bytes(listed(SCHEMATIC, "0" * 64))
    said, error = inspect(path, "--schematic", code=2)
    assert said == "" and "does not have the ID" in error


def test_an_asset_of_the_store_and_its_build(inspect: Run, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(uki())
    store = Store.open(tmp_path / "store")
    record = AssetRecord(SCHEMATIC_ID, "v1.13.0", "metal-amd64-uki.efi", "cd" * 32, made)
    store.put_asset(record)
    said, _ = inspect(f"{SCHEMATIC_ID[:8]}/v1.13.0/metal-amd64-uki.efi")
    assert "in the store" in said and "make it again" not in said
    assert said.startswith("metal-amd64-uki.efi\n")
    document = json.loads(inspect("cdcdcdcd", "--json")[0])
    assert document["known"]["build_key"] == "cd" * 32 and document["remake"] is None
    _, error = inspect("no/such/asset", code=2)
    assert "there is no file 'no/such/asset', and no such asset in the store" in error


def test_without_a_store_none_is_made(inspect: Run, image: Path, tmp_path: Path) -> None:
    inspect(image)
    assert not (tmp_path / "store").exists()
    _, error = inspect(tmp_path / "missing.iso", code=2)
    assert "there is no file" in error and "store ls" in error


def test_a_damaged_store_is_no_obstacle_to_a_file(
    inspect: Run, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").write_bytes(b"not a store")
    inspect(image)
    inspect("cdcdcdcd", code=1)


def test_what_is_no_file(inspect: Run, tmp_path: Path) -> None:
    _, error = inspect(tmp_path, code=2)
    assert "is a directory" in error
    _, error = inspect("", code=2)
    assert "there is no file ''" in error
    os.mkfifo(tmp_path / "pipe")
    _, error = inspect(tmp_path / "pipe", code=2)
    assert "is no regular file" in error


def test_damage(inspect: Run, image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zst"
    cut.write_bytes(image.read_bytes()[:-100])
    _, error = inspect(cut, code=2)
    assert error.startswith("error: cut.zst is a damaged compressed file: ")
    document = json.loads(inspect(cut, "--json", code=2)[0])
    assert document["error"]["code"] == "damaged-file"
    partly = tmp_path / "partly"
    partly.write_bytes(initramfs(extensions_yaml([("a", "1")]))[:-30])
    said, _ = inspect(partly)
    assert "not told" in said and "ends inside" in said


def test_an_empty_file(inspect: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    said, _ = inspect(empty)
    assert "File of a kind that is not known" in said and "0 B" in said


def test_signatures(inspect: Run, tmp_path: Path) -> None:
    path = tmp_path / "signed.efi"
    path.write_bytes(sign_pe(uki(), signer()))
    said, _ = inspect(path)
    assert "secure boot  signed by CN=test rsa" in said
    assert "metal-amd64-secureboot-uki.efi" in said
    assert "signatures are equal only when they are made with the same keys" in said


def test_names_cannot_steer_the_terminal(inspect: Run, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2Jname"
    listed = extensions_yaml([('"\\e[31mred"', "1")], 'a: "\\x1b]0;title\\x07"\n')
    path.write_bytes(cpio({"\x1b[31m": b"", "extensions.yaml": listed, "b\nc": b"x"}))
    said, _ = inspect(path, "--parts")
    assert "\x1b" not in said and "\x07" not in said and "b\ufffdc" in said


def test_long_lists_are_cut_with_a_hint(inspect: Run, tmp_path: Path) -> None:
    path = tmp_path / "many"
    many = [(f"extension-{number}", "1.0.0") for number in range(70)]
    text = "customization: {}\n" + "# a comment\n" * 99
    path.write_bytes(initramfs(extensions_yaml(many, text)))
    said, _ = inspect(path)
    assert "extensions (70)" in said and "… and 30 more rows (--json has all)" in said
    assert "more lines (--schematic writes all)" in said
    document: dict[str, Any] = json.loads(inspect(path, "--json")[0])
    assert len(document["extensions"]) == 70


def test_progress_of_a_long_stream(
    inspect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local_imager.deliver.inspect import walking

    monkeypatch.setattr(walking, "_SHOWN_BYTES", 1 << 20)
    path = tmp_path / "zeros.zst"
    path.write_bytes(zstandard.compress(bytes(3 << 20)))
    _, error = inspect(path)
    assert "read" in error and "zeros.zst" in error and "3.0 MiB" in error
