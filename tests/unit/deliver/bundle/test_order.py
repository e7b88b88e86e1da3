"""What a bundle is asked to hold: what goes together, names on the way, lists of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.near.order import (
    MAX_IMAGES_FILE_BYTES,
    Order,
    parse_image,
    parse_images,
    read_images_file,
    read_schematic_file,
    split_names,
)
from local_imager.errors import InputError, SchematicError
from local_imager.oci.model import Reference
from tests.unit.deliver.bundle.making import PLAIN, schematic_file
from tests.unit.sources.test_upstream import V1130

IMAGE = Reference.parse("registry.k8s.io/pause:3.10")
FILE = schematic_file("a.yaml", PLAIN)


def order(**more: Any) -> Order:
    given: dict[str, Any] = {
        "versions": (V1130,),
        "arches": ("amd64",),
        "host_arches": ("amd64",),
    }
    return Order(**{**given, **more}).check()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"versions": ()}, "not said what the bundle is to hold"),
        ({"versions": (), "images": (IMAGE,), "schematics": (FILE,)}, "--schematic is about a"),
        ({"versions": (), "images": (IMAGE,), "all_extensions": True}, "--extensions is about a"),
        ({"versions": (), "images": (IMAGE,), "overlays": ("x",)}, "--overlays is about a"),
        ({"versions": (), "images": (IMAGE,), "assets": ("x",)}, "--with-assets is about a"),
        ({"assets": ("metal-amd64.iso",)}, "builds what a schematic describes"),
        ({"assets": ("metal-arm64.iso",), "schematics": (FILE,)}, "is for arm64, and the bundle"),
        ({"assets": ("nonsense",), "schematics": (FILE,)}, "nonsense"),
        ({"schematics": (FILE, schematic_file("a.yaml", PLAIN))}, "two schematics have it"),
        ({"schematics": (schematic_file("policy.toml", PLAIN),)}, "the name of another file"),
        ({"schematics": (schematic_file("key-a.pem", PLAIN),)}, "the name of another file"),
        ({"schematics": (schematic_file("a b.yaml", PLAIN),)}, "other characters than letters"),
        ({"schematics": (schematic_file(".a.yaml", PLAIN),)}, "other characters than letters"),
        ({"schematics": (schematic_file("a" * 129, PLAIN),)}, "too long"),
    ],
)
def test_what_does_not_go_together_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        order(**given)
    assert caught.value.hint


def test_what_goes_together_passes() -> None:
    order()
    order(versions=(), images=(IMAGE,))
    order(schematics=(FILE,), assets=("metal-amd64.iso",), overlays=("x",))


def test_a_list_of_images_is_read_line_by_line() -> None:
    text = b"""# Kubernetes
registry.k8s.io/pause:3.10   # the sandbox

  docker.io/library/busybox@sha256:%s\r
registry.k8s.io/pause:3.10
""" % (b"0" * 64)
    found = parse_images(text, "list")
    assert [str(image) for image in found] == [
        "registry.k8s.io/pause:3.10",
        f"docker.io/library/busybox@sha256:{'0' * 64}",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"pause:3.10", "is not an image reference with its registry"),
        (b"library/busybox:1", "is not an image reference with its registry"),
        (b"registry.k8s.io/pause", "names neither a tag nor a digest"),
        (b"registry.k8s.io/\x1b[31mpause:1", "is not an image reference"),
    ],
)
def test_a_bad_line_is_named_with_its_place(line: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_images(b"registry.k8s.io/pause:3.10\n\n" + line + b"\n", "images.txt")
    assert caught.value.location == "images.txt:3"
    assert caught.value.message.isprintable()
    assert "registry/repository" in caught.value.hint


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        parse_images(b"\xff\xfe", "x")
    with pytest.raises(InputError, match="larger than 1 MiB"):
        parse_images(b"#" * (MAX_IMAGES_FILE_BYTES + 1), "x")
    with pytest.raises(InputError, match="cannot read the list"):
        read_images_file(str(tmp_path / "none"))
    file = tmp_path / "list"
    file.write_text("registry.k8s.io/pause:3.10\n")
    assert read_images_file(str(file)) == (IMAGE,)
    with pytest.raises(InputError) as caught:
        parse_image("pause")
    assert caught.value.location == "--image"


def test_a_schematic_keeps_its_bytes_and_loses_its_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "edge.yaml"
    path.write_bytes(PLAIN)
    found = read_schematic_file(str(path))
    assert (found.name, found.data) == ("edge.yaml", PLAIN)
    with pytest.raises(SchematicError, match="cannot read"):
        read_schematic_file(str(tmp_path / "none.yaml"))


def test_names_are_given_together_or_again() -> None:
    assert split_names(("a,b", " c ,a,", "")) == ("a", "b", "c")
