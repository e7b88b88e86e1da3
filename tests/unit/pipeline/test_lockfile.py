"""The lock file: one spelling, strict reading, differences in words."""

from __future__ import annotations

import random
import re
import stat
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_imager.errors import InputError, StoreError
from local_imager.oci.model import Digest
from local_imager.pipeline.lockdiff import changes
from local_imager.pipeline.lockfile import (
    Lock,
    LockedImage,
    LockedSchematic,
    LockedVersion,
    Recipe,
    render_lock,
    write_lock,
)
from local_imager.pipeline.lockread import MAX_LOCK_BYTES, MAX_TEXT, parse_lock, read_lock
from local_imager.profile.version import TalosVersion

V190, V1130 = TalosVersion.parse("v1.9.0"), TalosVersion.parse("v1.13.0")
A, B = Digest.of(b"a"), Digest.of(b"b")


def image(name: str = "siderolabs/imager", **more: Any) -> LockedImage:
    values: dict[str, Any] = {
        "role": "base",
        "name": name,
        "tag": "v1.9.0",
        "digest": A,
        "signer": "sha256:key",
        "size_bytes": {"arm64": 7, "amd64": 5},
    }
    return LockedImage(**(values | more))


LOCK = Lock(
    tool="0.1.0",
    registry="registry.test/mirror",
    arches=("amd64", "arm64"),
    recipe=Recipe(1559424892, "https://factory.talos.dev/", 1),
    trusted_roots=(str(A),),
    policy=("registry.test/** (user-file): a signature",),
    schematics=(LockedSchematic("b.yaml", "0" * 64), LockedSchematic("a.yaml", "f" * 64)),
    versions=(
        LockedVersion(V1130, V1130, (image(tag="v1.13.0"),)),
        LockedVersion(
            V190,
            V1130,
            (
                image(),
                image(role="builder", tag="v1.13.0", digest=B),
                image("siderolabs/gvisor", role="extension", tag="1.0", size_bytes={"any": 3}),
            ),
        ),
    ),
)


def normal(lock: Lock) -> Lock:
    versions = tuple(
        replace(entry, images=tuple(sorted(entry.images, key=lambda i: i.key)))
        for entry in sorted(lock.versions, key=lambda entry: entry.version)
    )
    return replace(lock, schematics=tuple(sorted(lock.schematics)), versions=versions)


def test_a_lock_reads_back_as_it_was_and_is_written_the_same_again() -> None:
    data = render_lock(LOCK)
    read = parse_lock(data, "x.lock")
    assert read == normal(LOCK)
    assert render_lock(read) == data


def test_the_order_of_the_parts_does_not_show() -> None:
    shuffle = random.Random(3).sample
    mixed = replace(
        LOCK,
        schematics=tuple(shuffle(LOCK.schematics, 2)),
        versions=tuple(
            replace(entry, images=tuple(shuffle(entry.images, len(entry.images))))
            for entry in reversed(LOCK.versions)
        ),
    )
    assert render_lock(mixed) == render_lock(LOCK)


def test_versions_stand_in_the_order_of_versions() -> None:
    text = render_lock(LOCK).decode()
    assert re.findall(r'^version = "(.+)"', text, re.MULTILINE) == ["v1.9.0", "v1.13.0"]


def test_update_bots_find_each_version_beside_its_comment() -> None:
    """The expression of Renovate's documentation for a regex manager, and of ours."""
    found = re.findall(
        r'# renovate: datasource=(\S+) depName=(\S+)\n\s*\w*version\s*=\s*"(.+?)"',
        render_lock(LOCK).decode(),
    )
    name = "registry.test/mirror/siderolabs/imager"
    assert found == [("docker", name, "v1.9.0"), ("docker", name, "v1.13.0")]


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_any_text_is_written_as_toml_reads_it(text: str) -> None:
    document = tomllib.loads(render_lock(replace(LOCK, registry="r", tool=text)).decode())
    assert document["tool"] == text


def change(old: str, new: str) -> Callable[[str], str]:
    def apply(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return apply


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "a newer format": (change("format = 1", "format = 2"), "format is 2"),
    "no format": (change("format = 1\n", ""), "format is missing"),
    "format as text": (change("format = 1", 'format = "1"'), "format wants a whole number"),
    "format as bool": (change("format = 1", "format = true"), "format wants a whole number"),
    "an unknown key": (change("tool =", "tol = 1\ntool ="), "'tol' is not a key"),
    "a near key": (change("tool =", "tools = 1\ntool ="), "did you mean tool?"),
    "a foreign table": (lambda text: text + "[extra]\n", "'extra' is not a key"),
    "unknown below": (change("builder =", "extra = 1\nbuilder ="), "version[1].'extra'"),
    "unknown in trust": (change("trusted_roots", "x = 1\ntrusted_roots"), "trust.'x'"),
    "a tag for a root": (change(str(A), "latest"), "trusted_roots wants digests"),
    "a tag for a digest": (change(f'digest = "{A}"', 'digest = "latest"'), "digest is wrong"),
    "a bad version": (change('"v1.9.0"', '"1.9"'), "version[1].version is wrong"),
    "a bad role": (change('"builder"', '"bilder"'), "version[1].image[2].role wants one of"),
    "a bad name": (change("siderolabs/gvisor", "../etc"), "version[1].image[3].name"),
    "a size that is text": (change("amd64 = 5", 'amd64 = "5"'), "size_bytes.amd64"),
    "a negative size": (change("amd64 = 5", "amd64 = -5"), "size_bytes.amd64"),
    "an unknown architecture": (change("amd64 = 5", "riscv = 5"), "size_bytes.'riscv'"),
    "architectures": (change('"amd64", "arm64"', '"amd64", "s390x"'), "arches wants"),
    "an architecture twice": (change('"amd64", "arm64"', '"amd64", "amd64"'), "arches wants"),
    "none": (change('"amd64", "arm64"', ""), "arches wants"),
    "an absolute path": (change('"a.yaml"', '"/etc/passwd"'), "schematic[1].file"),
    "a bad ID": (change("f" * 64, "F" * 64), "schematic[1].id"),
    "a table for a list": (
        lambda text: text.replace("[[schematic]]", "[schematic]", 1).split("\n[[schematic]]")[0],
        "schematic wants [[schematic]] tables",
    ),
    "numbers for tables": (
        lambda text: "schematic = [1]\n" + text.split("\n[[schematic]]")[0],
        "schematic wants [[schematic]] tables",
    ),
    "a text for a table": (
        lambda text: text.split("[recipe]")[0] + "recipe = 1\n",
        "recipe wants a table",
    ),
    "an image twice": (
        lambda text: text + text[text.rindex("[[version.image]]") :],
        "more than once",
    ),
    "a colour": (change('"0.1.0"', r'"\u001b[31m"'), "tool wants a line of text"),
    "an endless text": (change('"0.1.0"', f'"{"x" * (MAX_TEXT + 1)}"'), "tool wants"),
    "an empty text": (change('"0.1.0"', '""'), "tool wants"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_lock_is_refused_with_its_place(name: str) -> None:
    spoil, told = BAD[name]
    text = spoil(render_lock(LOCK).decode())
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        parse_lock(text.encode(), "x.lock")
    assert caught.value.code == "lock-malformed"
    assert caught.value.exit_code == 2
    assert caught.value.location == "x.lock"


def test_a_merge_conflict_is_told_with_line_and_column() -> None:
    text = render_lock(LOCK).decode().replace("[trust]", "<<<<<<< ours\n[trust]")
    with pytest.raises(InputError, match="not TOML") as caught:
        parse_lock(text.encode(), "x.lock")
    line = text.splitlines().index("<<<<<<< ours") + 1
    assert caught.value.location == f"x.lock:{line}:1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"\0" * 100,
        b"a = " + b"[" * 100_000,
        b"a" + b".a" * 500_000 + b" = 1",
        b'"=".' + b"a." * 500_000 + b"a = 1",
        b"x = { s = 1, " + b"a." * 500_000 + b"a = 1 }",
        b'x = { s = """\n""", ' + b"a." * 500_000 + b'a = "1" }',
        b'x = "' + b'\\".' * 500_000,
        b"[" + b"a." * 500_000 + b"a]",
        b"# " + b"x" * MAX_LOCK_BYTES,
    ],
)
def test_hostile_bytes_are_refused_and_never_crash(data: bytes) -> None:
    began_s = time.monotonic()
    with pytest.raises(InputError):
        parse_lock(data, "x.lock")
    assert time.monotonic() - began_s < 5


def test_dots_in_texts_do_not_count() -> None:
    lock = replace(LOCK, policy=("a.b" * 100,), schematics=(LockedSchematic("." * 400, "0" * 64),))
    assert parse_lock(render_lock(lock), "x.lock") == normal(lock)


@given(st.binary(max_size=40), st.integers(0, 1500))
def test_no_damage_of_a_lock_crashes_its_reader(noise: bytes, at: int) -> None:
    data = render_lock(LOCK)
    try:
        parse_lock(data[:at] + noise + data[at + len(noise) :], "x.lock")
    except InputError as error:
        assert error.message


def test_files_are_written_whole_and_read_with_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "local-imager.lock"
    written = write_lock(path, LOCK)
    assert read_lock(path) == replace(written, lock=normal(LOCK))
    assert written.digest == Digest.of(path.read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    before = path.stat()
    write_lock(path, LOCK)
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_read_or_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        read_lock(tmp_path / "missing.lock")
    assert caught.value.code == "lock-missing"
    with pytest.raises(InputError, match="directory"):
        read_lock(tmp_path)
    with pytest.raises(StoreError, match="could not write"):
        write_lock(tmp_path / "nowhere" / "x.lock", LOCK)


def with_base(**more: Any) -> Lock:
    return replace(LOCK, versions=(LockedVersion(V1130, V1130, (image(tag="v1.13.0", **more),)),))


OTHERS: list[tuple[Lock, Lock, str, str]] = [
    (LOCK, replace(LOCK, tool="0.2.0"), "tool", "0.1.0 → 0.2.0"),
    (LOCK, replace(LOCK, registry="ghcr.io"), "registry", "registry.test/mirror → ghcr.io"),
    (LOCK, replace(LOCK, arches=("amd64",)), "arches", "amd64, arm64 → amd64"),
    (LOCK, replace(LOCK, trusted_roots=()), "trusted-root", "→ none"),
    (LOCK, replace(LOCK, policy=("p",)), "policy", "→ p"),
    (LOCK, replace(LOCK, recipe=replace(LOCK.recipe, epoch=1)), "epoch", "1559424892 → 1"),
    (LOCK, replace(LOCK, recipe=replace(LOCK.recipe, conversion=2)), "conversion", "1 → 2"),
    (LOCK, replace(LOCK, recipe=replace(LOCK.recipe, factory_url="u")), "factory-url", "→ u"),
    (LOCK, replace(LOCK, schematics=LOCK.schematics[:1]), "schematic-removed", "a.yaml: gone"),
    (replace(LOCK, schematics=LOCK.schematics[:1]), LOCK, "schematic-added", "a.yaml: new"),
    (
        LOCK,
        replace(LOCK, schematics=(LOCK.schematics[0], LockedSchematic("a.yaml", "e" * 64))),
        "schematic-changed",
        f"a.yaml: {'f' * 64} → {'e' * 64}",
    ),
    (LOCK, replace(LOCK, versions=LOCK.versions[:1]), "version-removed", "Talos v1.9.0: gone"),
    (replace(LOCK, versions=LOCK.versions[:1]), LOCK, "version-added", "Talos v1.9.0: new"),
    (
        with_base(),
        replace(with_base(), versions=(replace(with_base().versions[0], builder=V190),)),
        "builder",
        "builder: v1.13.0 → v1.9.0",
    ),
    (with_base(), with_base(digest=B), "digest", f"digest: {A} → {B}"),
    (with_base(), with_base(signer="other"), "signer", "SIGNER: sha256:key → other"),
    (with_base(), with_base(size_bytes={"amd64": 6}), "size", "amd64: 5 bytes → 6 bytes"),
    (
        with_base(role="extension"),
        replace(LOCK, versions=(LockedVersion(V1130, V1130, (image(role="extension"),)),)),
        "tag",
        "tag: v1.13.0 → v1.9.0",
    ),
    (with_base(), with_base(name="siderolabs/other"), "image-removed", "imager:v1.13.0: gone"),
    (with_base(), with_base(name="siderolabs/other"), "image-added", "other:v1.13.0: new"),
]


@pytest.mark.parametrize(("old", "new", "kind", "told"), OTHERS)
def test_each_difference_is_told_in_words(old: Lock, new: Lock, kind: str, told: str) -> None:
    (found,) = [change for change in changes(old, new) if change.kind == kind]
    assert told in found.text
    assert found.as_dict()["matters"] is (kind not in ("tool", "trusted-root", "policy"))
    assert changes(old, old) == () == changes(new, new)


def test_a_size_that_only_one_side_knows_is_no_difference() -> None:
    assert changes(with_base(), with_base(size_bytes={"amd64": 5})) == ()
