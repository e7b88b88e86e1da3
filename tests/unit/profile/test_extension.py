"""The virtual extension, byte for byte."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import pytest

from local_imager.errors import InputError
from local_imager.profile.extension import schematic_extension
from tests.unit.profile.vectors import golden, version

SCHEMATICS = {row["name"]: row for row in golden("enhanced")["schematics"]}


def row_id(row: dict[str, Any]) -> str:
    return f"{row['schematic_name']}-{row['version']}"


@pytest.mark.parametrize("row", golden("schematic_extension"), ids=row_id)
def test_the_tar_equals_the_factorys(row: dict[str, Any]) -> None:
    known = SCHEMATICS[row["schematic_name"]]
    tar = schematic_extension(
        known["id"], known["canonical"], version(row["version"]), row["external_url"]
    )
    assert tar.name == row["file_name"]
    assert len(tar.content) == row["tar_size"]
    with tarfile.open(fileobj=io.BytesIO(tar.content)) as archive:
        manifest = archive.extractfile("manifest.yaml")
        assert manifest is not None
        assert manifest.read().decode() == row["entries"][0]["content"]
        assert [member.name.rstrip("/") for member in archive] == [
            entry["name"].rstrip("/") for entry in row["entries"]
        ]
    assert hashlib.sha256(tar.content).hexdigest() == row["tar_sha256"]


def test_the_text_comes_with_v1_7() -> None:
    before = schematic_extension("0" * 64, "customization: {}\n", version("v1.6.99"), "u")
    after = schematic_extension("0" * 64, "customization: {}\n", version("v1.7.0-alpha.0"), "u")
    assert b"extraInfo" not in before.content
    assert b"    extraInfo: |\n        customization: {}\n" in after.content


@pytest.mark.parametrize("url", ["", "a b", "a\nname: evil", "a\u2028b", "a\x07"])
def test_a_factory_url_that_would_change_the_manifest_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        schematic_extension("0" * 64, "customization: {}\n", version("v1.13.0"), url)
