"""``bundle create``: what it asks for, what it says, and its exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.cli.sizes import parse_size
from local_imager.deliver.bundle.form.inventory import make_inventory, render_inventory
from local_imager.errors import InputError
from local_imager.store.store import Store
from tests.unit.deliver.bundle.making import (
    FLANNEL,
    RICH,
    SECRET,
    Making,
    faults_of,
    key_file,
    making,
    miniature,
    seeded,
)
from tests.unit.sources.forge import REGISTRY, Signing

__all__ = ["making", "miniature", "seeded"]


class Line:
    """Runs the command over the upstream in miniature and reads what it says."""

    def __init__(self, making: Making, capsys: pytest.CaptureFixture[str]) -> None:
        self.making, self._capsys = making, capsys
        self.error = ""
        self.config = making.path / "settings.toml"
        self.config.write_text(
            f'[upstream]\nregistry = "{REGISTRY}"\nsource = "{making.forge.layout.path}"\n\n'
            f'[[trust]]\npattern = "{REGISTRY}/**"\nkey = {json.dumps(making.signing.pem)}\n'
        )

    def text(self, *arguments: str | Path, code: int = 0, quiet: bool = True) -> str:
        self._capsys.readouterr()
        options = ["--config", str(self.config), "--store", str(self.making.path / "store")]
        options += ["--quiet"] if quiet else []
        found = run([*options, "bundle", "create", *map(str, arguments)])
        said = self._capsys.readouterr()
        assert found == code, said
        self.error = said.err
        return said.out

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self.text(*arguments, "--json", code=code))

    def file(self, name: str, data: bytes) -> Path:
        path = self.making.path / name
        path.write_bytes(data)
        return path


@pytest.fixture
def line(
    making: Making, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Line:
    monkeypatch.chdir(making.path)
    return Line(making, capsys)


def test_it_says_what_it_wrote_and_what_comes_next(line: Line) -> None:
    rich = line.file("rich.yaml", RICH)
    given = ("--version", "v1.9.0", "--schematic", rich, "--image", str(FLANNEL), "--arch", "amd64")
    said = line.text(*given, "-o", "site.tar", quiet=False)
    file = line.making.path / "site.tar"
    assert faults_of(file) == ()
    assert "  site.tar\n" in said
    assert "holds     8 images, 5 documents in " in said
    assert "identity  sha256:" in said
    assert "signed    by nobody" in said and "--sign-key" in said
    assert "  local-imager bundle check site.tar   # proves" in said
    assert "  carry site.tar over" in said
    assert "  local-imager bundle import site.tar\n" in said
    assert "gathering Talos v1.9.0 for amd64 of rich.yaml and 1 further image" in line.error
    assert "images verified, signed by sha256:" in line.error
    assert "(was there already, byte for byte)" in line.text(*given, "-o", "site.tar")


def test_the_result_is_there_for_programs_too(line: Line) -> None:
    done = line.json("--image", str(FLANNEL), "-o", "x.tar")
    assert done["parts"] == [
        {
            "path": "x.tar",
            "size_bytes": (line.making.path / "x.tar").stat().st_size,
            "unchanged": False,
        }
    ]
    assert (done["images"], done["assets"], done["signature"]) == (1, 0, None)
    assert done["set"].startswith("sha256:")


def test_a_look_shows_sizes_by_kind_and_needs_no_file_name(line: Line) -> None:
    given = ("--version", "v1.9.0", "--image", str(FLANNEL), "--arch", "amd64")
    said = line.text(*given, "--dry-run")
    rows = [row.split() for row in said.splitlines()]
    assert [row[2:4] for row in rows] == [["6", "images"], ["3", "documents"], ["in", "1"]]
    assert said.endswith("in 1 file; nothing was written\n")
    look = line.json(*given, "--dry-run")
    assert look["exact"] and look["dry_run"]
    done = line.json(*given, "-o", "site.tar")
    assert (look["size_bytes"], look["set"]) == (done["size_bytes"], done["set"])
    assert [kind["kind"] for kind in look["kinds"]] == ["images", "documents"]


def test_a_look_at_a_delta_says_what_the_far_side_holds(line: Line) -> None:
    far = line.file(
        "far.json", render_inventory(make_inventory(Store.open(line.making.path / "store")))
    )
    given = ("--image", str(FLANNEL), "--arch", "amd64", "--since", far)
    said = line.text(*given, "--dry-run")
    assert "of it held by the far side" in said
    assert "at most in 1 file" in said
    said = line.text(*given, "-o", "delta.tar")
    assert "leaves    " in said and "out that the far side has" in said
    look = line.json(*given, "--dry-run")
    assert (look["exact"], look["set"]) == (False, None)


def test_assets_that_are_not_built_are_told_of(line: Line) -> None:
    given = ("--version", "v1.13.0", "--schematic", line.file("secret.yaml", SECRET))
    said = line.text(*given, "--arch", "amd64", "--with-assets", "metal-amd64.iso", "--dry-run")
    assert "metal-amd64.iso is not built yet, so its size is not known" in said
    assert "at least in 1 file; nothing was built or written" in said


def test_a_key_signs_and_a_wrong_one_stops_before_anything(line: Line) -> None:
    key = key_file(line.making.path / "key.pem", Signing())
    said = line.text("--image", str(FLANNEL), "-o", "x.tar", "--sign-key", key)
    assert "signed    by sha256:" in said
    assert "x.tar.sigstore.json travels beside it" in said
    assert "carry x.tar and x.tar.sigstore.json over" in said
    said = line.text("--image", str(FLANNEL), "-o", "x.tar")
    assert "as x.tar.sigstore.json says, which was there already" in said
    line.text("--image", str(FLANNEL), "-o", "y.tar", "--sign-key", "none.pem", code=2)
    assert "cannot be read" in line.error


def test_parts_are_listed_and_packed_files_named(line: Line) -> None:
    done = line.json("--image", str(FLANNEL), "-o", "x.tar", "--split", "150KB", "--zstd")
    count = len(done["parts"])
    names = [part["path"] for part in done["parts"]]
    assert names == [f"x.part{n}of{count}.tar.zst" for n in range(1, count + 1)]
    assert line.json("--image", str(FLANNEL), "-o", "y.tar.zst")["parts"][0]["path"] == "y.tar.zst"
    line.text("--image", str(FLANNEL), "-o", "x.tar", "--split", "1KB", code=2)
    assert "say --split" in line.error


def test_lists_of_images_come_from_a_file_or_standard_input(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = line.file("images.txt", f"# cni\n{FLANNEL}\n".encode())
    assert line.json("--images-file", images, "-o", "x.tar")["images"] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{FLANNEL}\n".encode())))
    assert line.json("--images-file", "-", "-o", "x.tar")["parts"][0]["unchanged"]
    line.file("images.txt", b"\nflannel:v0.26\n")
    line.text("--images-file", images, "-o", "x.tar", code=2)
    assert f"{images}:2: " in line.error


def test_refused_images_are_named_and_nothing_is_written(line: Line) -> None:
    names = ("quay.test/a/b:1", "quay.test/c:2", f"{REGISTRY}/cni/none:v1")
    given = [word for name in (*names, str(FLANNEL)) for word in ("--image", name)]
    line.text(*given, "-o", "x.tar", code=3)
    assert "3 of 4 images are refused; nothing was written" in line.error
    assert all(f"- {name}: " in line.error for name in names)
    assert 'pattern = "quay.test/**"' in line.error
    error = line.json(*given, "-o", "x.tar", code=3)["error"]
    assert error["code"] == "images-refused"
    line.text("--image", names[2], "-o", "x.tar", code=2)
    assert "1 of 1 images cannot be had" in line.error
    assert not (line.making.path / "x.tar").exists()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--version", "v1.9.0"), 2, "Missing option '-o'"),
        (("-o", "x.tar"), 2, "not said what the bundle is to hold"),
        (("-o", "x.tar", "--version", "1.9"), 2, "1.9"),
        (("-o", "x.tar", "--image", "pause"), 2, "--image: "),
        (("-o", "x.tar", "--version", "v1.9.0", "--split", "many"), 2, "is not a size"),
        (("-o", "no/x.tar", "--version", "v1.9.0"), 2, "there is no directory"),
        (("-o", "x.tar", "--version", "v1.9.0", "--since", "no.json"), 2, "inventory"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    line: Line, given: tuple[str, ...], code: int, said: str
) -> None:
    line.text(*given, code=code)
    assert said in line.error


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4GiB", 4 * 1024**3),
        ("4gib", 4 * 1024**3),
        ("4GB", 4 * 1000**3),
        ("4G", 4 * 1024**3),
        ("700 MB", 700 * 1000**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("4096", 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "4 parsecs", "1e9", "4iB", "0.0001KB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)
