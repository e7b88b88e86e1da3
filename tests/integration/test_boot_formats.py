"""What the readers of boot files see is what the real tools see."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from local_imager.formats.cpio import read_cpio, rewrite_times
from local_imager.formats.entries import Entry, Volume
from local_imager.formats.erofs import read_erofs
from local_imager.formats.initramfs import segments
from local_imager.formats.packing import packing_of, unpack
from local_imager.formats.source import FileSource, FormatError, sha256_of
from local_imager.formats.squashfs import read_squashfs

_EPOCH = 1559424892
_UUID = "01234567-89ab-4def-8123-456789abcdef"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, programs: None) -> Path:
    """A folder with what file systems find hard: long, sparse, many, odd."""
    root = tmp_path_factory.mktemp("formats") / "tree"
    deep = root / "a" / "b" / "c"
    deep.mkdir(parents=True)
    many = root / "many"
    many.mkdir()
    for number in range(300):
        (many / f"file-{number}").write_text(f"{number}\n" * number)
    (deep / "noise").write_bytes(hashlib.shake_256(b"noise").digest(300_000))
    (deep / "text").write_text(
        "".join(f"{number} squared is {number**2}\n" for number in range(40000))
    )
    (root / "über name\n").write_bytes(b"odd")
    (root / "a" / "link").symlink_to("b/../b/c/noise")
    os.link(deep / "text", root / "a" / "again")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(3_000_000)
        sparse.seek(1_500_000)
        sparse.write(b"in the middle")
    (root / "program").write_bytes(Path("/bin/bash").read_bytes())
    (root / "program").chmod(0o4755)
    return root


def _run(*argv: str | Path, cwd: Path | None = None, given: bytes = b"") -> bytes:
    done = subprocess.run(list(argv), cwd=cwd, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def _on_disk(root: Path) -> dict[str, tuple[str, int, int, str]]:
    """Path to kind, mode, size and digest or target, of a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        kind, size, content = "special", 0, ""
        if stat.S_ISDIR(state.st_mode):
            kind = "directory"
        elif stat.S_ISLNK(state.st_mode):
            kind, content = "link", os.readlink(path)
        elif stat.S_ISREG(state.st_mode):
            kind, size = "file", state.st_size
            content = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        mode = stat.S_IMODE(state.st_mode)
        found[str(path.relative_to(root))] = (kind, mode, size, content)
    return found


def _read(volume: Volume) -> dict[str, tuple[str, int, int, str]]:
    return {entry.path: _shown(volume, entry) for entry in volume.entries}


def _shown(volume: Volume, entry: Entry) -> tuple[str, int, int, str]:
    content = entry.link_target or ""
    if entry.kind == "file":
        content = sha256_of(volume.open(entry))
    assert entry.mode is not None
    return entry.kind, entry.mode, entry.size_bytes, content


@pytest.mark.parametrize(
    "options",
    [
        ["-comp", "gzip"],
        ["-comp", "xz", "-Xdict-size", "100%"],  # as Talos' imager before v1.8
        ["-comp", "zstd", "-Xcompression-level", "18"],  # from v1.8 on
        ["-comp", "lz4"],
        ["-comp", "xz", "-b", "1M"],
        ["-comp", "zstd", "-b", "4K", "-always-use-fragments"],
        ["-no-fragments", "-noI", "-noD", "-noF", "-noX"],
    ],
    ids=" ".join,
)
def test_squashfs_has_what_was_put_into_it(options: list[str], tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    _run("mksquashfs", tree, image, *options, "-all-root", "-noappend", "-no-progress", "-quiet")
    with FileSource(image) as source:
        volume = read_squashfs(source)
        assert _read(volume) == _on_disk(tree)
        assert {entry.uid for entry in volume.entries} == {0}
        files = {
            entry.path.rstrip("\n"): ("-" + stat.filemode(entry.mode or 0)[1:], entry.size_bytes)
            for entry in volume.entries
            if entry.kind == "file"
        }
    listed = _run("unsquashfs", "-lls", "-d", "x", image).decode()
    line = re.compile(r"^(-\S{9}) root/root +(\d+) \S+ \S+ x/(.+)$", re.M)
    assert {name: (mode, int(size)) for mode, size, name in line.findall(listed)} == files


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-zlz4"],
        ["-zlz4hc,12", "-C65536"],
        ["-zlz4", "-Elegacy-compress"],
        ["-zlz4", "-Eztailpacking", "-C16384"],
        ["-zlz4", "-Efragments"],
        ["-zlz4", "-Eall-fragments"],
        ["-zlz4", "-Ededupe", "-C32768"],
        ["--chunksize=65536"],
        ["-Eforce-inode-extended", "-Enoinline_data"],
        ["-Eforce-inode-compact"],
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_erofs_has_what_was_put_into_it(options: list[str], tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    _run("mkfs.erofs", "--quiet", f"-U{_UUID}", f"-T{_EPOCH}", *options, image, tree)
    with FileSource(image) as source:
        volume = read_erofs(source)
        assert _read(volume) == _on_disk(tree)
        assert volume.facts.uuid == _UUID
        assert {entry.mtime for entry in volume.entries} == {_EPOCH}
    _run("fsck.erofs", image)
    assert _UUID in _run("dump.erofs", "-s", image).decode()


@pytest.mark.parametrize("form", ["newc", "crc"])
def test_cpio_has_what_cpio_says(form: str, tree: Path, tmp_path: Path) -> None:
    names = b"\0".join(os.fsencode(name) for name in _on_disk(tree))
    archive = _run("cpio", "-0o", "-H", form, "--quiet", "-R", "+0:+0", cwd=tree, given=names)
    path = tmp_path / "archive"
    path.write_bytes(archive)
    seen = {}
    with FileSource(path) as source:
        for entry in read_cpio(source):
            digest = hashlib.sha256()
            for piece in entry.chunks():
                digest.update(piece)
            one = entry.entry
            content = (
                f"sha256:{digest.hexdigest()}" if one.kind == "file" else one.link_target or ""
            )
            seen[one.path] = (one.kind, one.mode, one.size_bytes, content)
        linked = {"a/again", "a/b/c/text"}
        expected = _on_disk(tree)
        assert {name: seen[name] for name in seen if name not in linked} == {
            name: expected[name] for name in expected if name not in linked
        }
        # Of a hard link's names the last one carries the content.
        assert sorted(seen[name][2] for name in linked) == [0, expected["a/again"][2]]
        assert b"".join(rewrite_times(source, None)) == archive


@pytest.mark.parametrize("epoch", [0, _EPOCH])
def test_times_are_set_as_cpio_itself_writes_them(
    epoch: int, tmp_path: Path, programs: None
) -> None:
    """The archive of touched files is the archive of untouched ones with its times rewritten."""
    files = ["0.sqsh", "extensions.yaml", "lib", "lib/firmware"]
    (tmp_path / "lib").mkdir()
    for name in ("0.sqsh", "extensions.yaml", "lib/firmware"):
        (tmp_path / name).write_bytes(name.encode() * 9)
    given = "\n".join(files).encode()
    argv = ["cpio", "-H", "newc", "--create", "--reproducible", "--quiet", "-R", "+0:+0"]
    before = _run(*argv, cwd=tmp_path, given=given)
    for name in (*files, "."):
        os.utime(tmp_path / name, (epoch, epoch))
    after = _run(*argv, cwd=tmp_path, given=given)
    assert before != after
    assert b"".join(rewrite_times([before], epoch)) == after


@pytest.mark.parametrize(
    "argv",
    [
        ["xz", "-C", "crc32", "-0", "-e", "-T0"],  # as Talos' imager before v1.8
        ["xz", "-9e", "--block-size=65536"],
        ["zstd", "-T0", "-18", "-q", "-c"],  # from v1.8 on
        ["zstd", "-1", "-q", "-c", "--long=27", "--no-check"],
        ["gzip", "-9n"],
        ["bzip2"],
    ],
    ids=" ".join,
)
def test_streams_of_the_real_packers_are_unpacked(
    argv: list[str], tree: Path, tmp_path: Path
) -> None:
    content = (tree / "program").read_bytes()
    packed = _run(*argv, given=content)
    path = tmp_path / "packed"
    path.write_bytes(packed + packed)
    with FileSource(path) as source:
        packing = packing_of(packed[:16])
        digest = hashlib.sha256()
        for piece in unpack(source, packing, max_bytes=1 << 30):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(content * 2).digest()


def test_an_initramfs_as_the_imager_puts_it_together(tree: Path, tmp_path: Path) -> None:
    """Microcode first, the system in xz, the extensions behind it in zstd, nothing between."""
    image = tmp_path / "0.sqsh"
    _run(
        "mksquashfs",
        tree,
        image,
        "-comp",
        "zstd",
        "-all-root",
        "-noappend",
        "-quiet",
        "-no-progress",
    )
    newc = ["cpio", "-H", "newc", "--create", "--reproducible", "--quiet", "-R", "+0:+0"]
    early = _run(*newc, cwd=tree, given=b"a\na/b\na/b/c\na/b/c/noise\n")
    system = _run("xz", "-C", "crc32", "-0", given=_run(*newc, cwd=tree, given=b"program\n"))
    late = _run("zstd", "-18", "-q", "-c", given=_run(*newc, cwd=tmp_path, given=b"0.sqsh\n"))
    whole = tmp_path / "initramfs"
    whole.write_bytes(early + system + late)
    seen = []
    with FileSource(whole) as source:
        for segment in segments(source):
            names = []
            for entry in segment.entries():
                digest = hashlib.sha256()
                for piece in entry.chunks():
                    digest.update(piece)
                names.append((entry.path, digest.hexdigest()[:8] if entry.kind == "file" else ""))
            seen.append((segment.packing, segment.xz_check, segment.size_bytes, names[-1]))
    noise, program = (tree / "a/b/c/noise").read_bytes(), (tree / "program").read_bytes()
    short = [hashlib.sha256(data).hexdigest()[:8] for data in (noise, program, image.read_bytes())]
    assert seen == [
        ("", "", -(-(len(early.rstrip(b"\0")) + 1) // 4) * 4, ("a/b/c/noise", short[0])),
        ("xz", "crc32", len(system), ("program", short[1])),
        ("zstd", "", len(late), ("0.sqsh", short[2])),
    ]


def test_a_cut_image_of_a_real_tool_is_refused(tree: Path, tmp_path: Path) -> None:
    squashfs, erofs = tmp_path / "squashfs", tmp_path / "erofs"
    _run("mksquashfs", tree, squashfs, "-noappend", "-quiet", "-no-progress")
    _run("mkfs.erofs", "--quiet", "-zlz4", erofs, tree)
    for path in (squashfs, erofs):
        os.truncate(path, path.stat().st_size // 2)
    with FileSource(squashfs) as source, pytest.raises(FormatError, match="cut off"):
        read_squashfs(source)
    with FileSource(erofs) as source, pytest.raises(FormatError, match="cut off"):
        read_erofs(source)
