"""An ISO does not tell which user its container ran as; everything else of it stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local_imager.build import isoowner
from local_imager.build.initramfs import NotNormalisable
from local_imager.build.isoowner import fix_iso_owner
from local_imager.formats.iso import read_iso
from local_imager.formats.source import FileSource


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name so long that its Rock Ridge entries go on elsewhere."""
    root = tmp_path_factory.mktemp("iso") / "tree"
    (root / "EFI" / "BOOT").mkdir(parents=True)
    (root / "EFI" / "BOOT" / "BOOTX64.EFI").write_bytes(b"MZ" * 3000)
    (root / ("long-" * 45)).write_text("a name of 225 bytes")
    (root / "link").symlink_to("/".join(["a-long-target"] * 30))
    for number in range(60):  # more records than one sector has room for
        (root / f"file-{number:02}").write_text(str(number))
    for path in [root, *root.rglob("*")]:
        os.utime(path, (10**9, 10**9), follow_symlinks=False)
    return root


def made(tree: Path, target: Path, owner: int, *options: str) -> Path:
    """Let xorrisofs write the image of a user, as the imager calls it."""
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-R", *options]
    argv += ["-uid", str(owner), "-gid", str(owner), "-partition_offset", "16"]
    fixed = ["--set_all_file_dates", "=1000000000", "--modification-date=2001090901464000"]
    subprocess.run([*argv, *fixed, "-o", target, tree], check=True, capture_output=True)
    return target


def entries(path: Path) -> dict[str, tuple[object, ...]]:
    with FileSource(path) as source:
        volume = read_iso(source)
        return {
            entry.path: (entry.kind, entry.mode, entry.size_bytes, entry.mtime, entry.link_target)
            for entry in volume.entries
        }


def test_images_of_two_users_become_the_same(tree: Path, tmp_path: Path) -> None:
    one, other = (made(tree, tmp_path / str(user), user) for user in (65532, 1000))
    root = made(tree, tmp_path / "root", 0)
    before = entries(one)
    assert one.read_bytes() != other.read_bytes()
    assert fix_iso_owner(one) == fix_iso_owner(other) > 60
    assert one.read_bytes() == other.read_bytes() == root.read_bytes()
    assert entries(one) == before
    assert fix_iso_owner(one) == 0


def test_another_program_reads_the_new_owners(tree: Path, tmp_path: Path) -> None:
    image = made(tree, tmp_path / "image", 65532)
    fix_iso_owner(image)
    argv = ["xorriso", "-indev", str(image), "-find", "/", "-exec", "lsdl", "--"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines() if len(line.split()) > 4]
    assert len(rows) > 60
    assert {(row[2], row[3]) for row in rows} == {("0", "0")}


def test_without_owners_there_is_nothing_to_do(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    argv = [
        "xorriso",
        "-as",
        "mkisofs",
        "-quiet",
        "-iso-level",
        "3",
        "--norock",
        "-o",
        str(image),
        str(tree),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    data = image.read_bytes()
    assert fix_iso_owner(image) == 0
    assert image.read_bytes() == data


def test_sums_over_the_image_are_respected(tree: Path, tmp_path: Path) -> None:
    image = made(tree, tmp_path / "image", 65532, "--md5")
    data = image.read_bytes()
    with pytest.raises(NotNormalisable, match="sums"):
        fix_iso_owner(image)
    assert image.read_bytes() == data


def test_what_cannot_be_shown_equal_stays_as_it_was(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made(tree, tmp_path / "image", 65532)
    data = image.read_bytes()
    monkeypatch.setattr(isoowner, "_owners", lambda *_: iter([len(data) - 5000]))
    with pytest.raises(NotNormalisable):
        fix_iso_owner(image)
    assert image.read_bytes() == data


@pytest.mark.parametrize("length", [0x8000, 0x8800, 0x9000, 0xC000])
def test_a_cut_off_image_is_left_alone(tree: Path, tmp_path: Path, length: int) -> None:
    whole = made(tree, tmp_path / "image", 65532)
    image = tmp_path / "cut"
    shutil.copyfile(whole, image)
    os.truncate(image, length)
    data = image.read_bytes()
    with pytest.raises(NotNormalisable):
        fix_iso_owner(image)
    assert image.read_bytes() == data
