"""Reading the head of a bundle's file, and only that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from local_imager.deliver.bundle.form.model import Bundle
from local_imager.deliver.bundle.reading.head import read_head
from local_imager.errors import InputError, SourceError
from local_imager.oci.model import Digest
from tests.unit.deliver.bundle.samples import head_bytes, in_two_parts, sample


def put(folder: Path, bundle: Bundle, number: int = 1, *, rest: bytes = b"anything") -> str:
    """Write a file whose head is right and whose rest is not."""
    path = folder / "site.tar"
    path.write_bytes(head_bytes(bundle, number) + rest)
    return str(path)


def test_the_head_is_read_and_the_rest_is_not_looked_at(tmp_path: Path) -> None:
    head = read_head(put(tmp_path, sample()))
    assert head.bundle == sample()
    assert (head.label.number, head.label.count) == (1, 1)
    assert head.label.set_digest == Digest.of(head.manifest)


def test_a_part_of_a_set(tmp_path: Path) -> None:
    head = read_head(put(tmp_path, in_two_parts(), 2))
    assert (head.label.number, head.label.count) == (2, 2)


def test_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "site.tar.zst"
    path.write_bytes(zstandard.compress(head_bytes(sample(), 1) + os.urandom(10_000)))
    assert read_head(str(path)).bundle == sample()


def test_standard_input_that_goes_on_for_ever(tmp_path: Path) -> None:
    path = put(tmp_path, sample())
    module = "local_imager.deliver.bundle.reading.head"
    code = f"from {module} import read_head; print(read_head('-').label)"
    endless = subprocess.Popen(["cat", path, "/dev/zero"], stdout=subprocess.PIPE)
    said = subprocess.check_output([sys.executable, "-c", code], stdin=endless.stdout)
    assert endless.stdout is not None
    endless.stdout.close()
    endless.wait()
    assert b"number=1, count=1" in said


def test_a_damaged_head_is_told_with_what_is_damaged(tmp_path: Path) -> None:
    data = bytearray(head_bytes(sample(), 1))
    data[520] ^= 1
    path = tmp_path / "site.tar"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"damaged where it says what it holds: bundle\.json:"):
        read_head(str(path))


def test_a_head_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "site.tar"
    path.write_bytes(head_bytes(sample(), 1)[:700])
    with pytest.raises(SourceError, match="cut off"):
        read_head(str(path))


def test_what_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "site.tar.sigstore.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="not a bundle"):
        read_head(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_head(str(tmp_path / "none.tar"))
