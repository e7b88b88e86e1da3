"""What the lab publishes: sound blobs, signatures that cosign accepts, the promised images."""

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from lab.console import run
from lab.oci import Layout
from lab.place import NAME_PREFIX, Place
from lab.signing import cosign_env
from lab.verify import Finding, check_blobs, check_signatures, verify_lab

pytestmark = pytest.mark.lab


def _images(place: Place) -> dict[str, str]:
    images: dict[str, str] = json.loads(place.record.read_text())["images"]
    return images


@pytest.fixture(scope="module")
def findings(lab_place: Place) -> list[Finding]:
    """What `lab verify` finds."""
    return verify_lab(lab_place)


def test_every_blob_and_signature_is_sound(lab_place: Place, findings: list[Finding]) -> None:
    assert [item for item in findings if not item.sound] == []
    assert len(findings) == len(_images(lab_place)) + 1


def test_signature_form_follows_the_version(findings: list[Finding]) -> None:
    forms = {item.subject: item.seen for item in findings}
    assert forms[f"{NAME_PREFIX}/siderolabs/imager:v1.9.0"] == "sig"
    assert forms[f"{NAME_PREFIX}/siderolabs/imager:v1.12.1"] == "bundle"
    assert forms[f"{NAME_PREFIX}/siderolabs/imager:v1.13.0"] == "bundle"


def test_signatures_are_refused_under_another_key(lab_place: Place, tmp_path: Path) -> None:
    run(
        [lab_place.bin / "cosign", "generate-key-pair", "--output-key-prefix", "other"],
        cwd=tmp_path,
        env=cosign_env(),
    )
    (tmp_path / "bin").symlink_to(lab_place.bin)
    (tmp_path / "steps").symlink_to(lab_place.steps)
    stranger = dataclasses.replace(lab_place, root=tmp_path)
    stranger.services.mkdir()
    (tmp_path / "other.pub").rename(stranger.public_key)
    wanted = [f"{NAME_PREFIX}/siderolabs/imager:{v}" for v in ("v1.9.0", "v1.13.0")]
    some = {name: _images(lab_place)[name] for name in wanted}
    findings = check_signatures(stranger, Layout.open(lab_place.upstream), some)
    assert len(findings) == 2
    assert not any(item.sound for item in findings)


def test_changed_and_missing_blobs_are_found(lab_place: Place, tmp_path: Path) -> None:
    copy = tmp_path / "upstream"
    shutil.copytree(lab_place.upstream, copy, copy_function=lambda s, t: Path(t).hardlink_to(s))
    layout = Layout.open(copy)
    first, second = layout.entries[0]["digest"], layout.entries[-1]["digest"]
    changed = layout.blob_path(first)
    content = changed.read_bytes()
    changed.unlink()  # the hard link only; the lab keeps its blob
    changed.write_bytes(content + b" ")
    child = layout.read(layout.entries[-1])["manifests"][0]["digest"]
    layer = layout.read({"digest": child})["layers"][0]["digest"]
    layout.blob_path(layer).unlink()
    wrong = {item.subject for item in check_blobs(layout) if not item.sound}
    assert first in wrong
    assert layer in wrong
    assert second not in wrong


@pytest.mark.parametrize(
    ("version", "there", "not_there"),
    [
        ("v1.9.0", {"i915-ucode", "installer"}, {"i915", "installer-base", "nut-client"}),
        ("v1.13.0", {"i915", "installer-base", "nut-client"}, {"i915-ucode", "installer"}),
    ],
)
def test_images_of_a_version(
    lab_place: Place, version: str, there: set[str], not_there: set[str]
) -> None:
    layout = Layout.open(lab_place.upstream)
    named = layout.named()
    catalogue = named[f"{NAME_PREFIX}/siderolabs/extensions:{version}"]
    listed = _catalogue_lines(layout, catalogue["digest"])
    for line in listed:
        reference, _, digest = line.partition("@")
        assert named[reference]["digest"] == digest
    of_version = {line.split("/")[-1].partition(":")[0] for line in listed}
    prefix = f"{NAME_PREFIX}/siderolabs/"
    of_version |= {
        name.removeprefix(prefix).partition(":")[0]
        for name in named
        if name.startswith(prefix) and name.endswith(f":{version}")
    }
    assert there | {"imager", "overlays", "hello-world-service"} <= of_version
    assert not not_there & of_version


def _catalogue_lines(layout: Layout, digest: str) -> list[str]:
    child = layout.read({"digest": digest})["manifests"][0]
    layer = layout.read(child)["layers"][0]
    with tarfile.open(
        fileobj=io.BytesIO(layout.blob_path(layer["digest"]).read_bytes())
    ) as content:
        member = content.extractfile("image-digests")
        assert member is not None
        return member.read().decode().splitlines()
