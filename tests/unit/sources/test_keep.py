"""Keeping all that is attached to an image: referrers, older forms, attestations of its index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local_imager.errors import NotFound, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import (
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Platform,
    canonical_json,
)
from local_imager.sources.evidence import ARTIFACT_EVIDENCE
from local_imager.sources.inventory import held_images
from local_imager.sources.upstream import Sources
from local_imager.store.store import Store
from tests.unit.sources.forge import MEDIA_BUNDLE, REGISTRY, Forge, Signing

NAME = "siderolabs/imager"
SBOM = "application/spdx+json"


def attach(forge: Forge, subject: Descriptor, kind: str, data: bytes) -> Descriptor:
    """Attach data to a manifest as a registry would list it for this repository."""
    tag = f"sha256-{subject.digest.hex}"
    name = str(forge.reference(NAME, tag))
    return forge.layout.attach(subject, kind, data, kind, list_name=name)


def tagged(forge: Forge, subject: Descriptor, suffix: str, data: bytes) -> Descriptor:
    """Put an artifact under a tag of cosign's older forms."""
    layer = forge.layout.put_bytes(data, f"application/x-{suffix}")
    artifact = forge.layout.put_artifact("", layer)
    tag = f"sha256-{subject.digest.hex}.{suffix}"
    forge.layout.set_ref(str(forge.reference(NAME, tag)), artifact)
    return artifact


class Place(NamedTuple):
    """An upstream whose image has everything attached that tools attach, and a store."""

    forge: Forge
    signing: Signing
    store: Store
    sink: RecordingSink
    top: Descriptor
    children: tuple[Descriptor, ...]
    expected: dict[str, Descriptor]

    def sources(self, *, offline: bool = False) -> Sources:
        source = None if offline else LayoutSource.open(self.forge.layout.path)
        policy = self.signing.policy()
        return Sources(self.store, REGISTRY, source, policy, self.sink, 4)

    def gather(self, arch: str = "amd64", scratch: Layout | None = None) -> int:
        sources = self.sources()
        reference = self.forge.reference(NAME, "v1.0.0")
        if scratch is None:
            image = sources.obtain_reference(reference, (arch,))
        else:
            image = sources.survey_reference(reference).image
        return sources.keep_attached(image, sources.outline(image, (arch,)), scratch)

    def warnings(self) -> list[str]:
        told = (event for event in self.sink.events if isinstance(event, Message))
        return [event.text for event in told if event.level == "warning"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    forge, signing = Forge(tmp_path / "upstream"), Signing()
    amd, arm = (forge.manifest({"a": b"x"}, arch, subject=arch) for arch in ("amd64", "arm64"))
    statement = forge.layout.put_bytes(b'{"provenance":1}', "application/vnd.in-toto+json")
    inside = forge.layout.put_artifact("", statement)
    entries = [amd.as_dict(), arm.as_dict()]
    entries.append(
        {
            **Descriptor(MEDIA_MANIFEST, inside.digest, inside.size_bytes).as_dict(),
            "platform": Platform("unknown", "unknown").as_dict(),
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": str(amd.digest),
            },
        }
    )
    body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries}
    top = forge.layout.put_bytes(canonical_json(body), MEDIA_INDEX)
    forge.layout.set_ref(str(forge.reference(NAME, "v1.0.0")), top)
    forge.sign_legacy(NAME, top, signing)
    expected = {
        "signature": attach(forge, top, MEDIA_BUNDLE, signing.bundle(top.digest)),
        "sbom": attach(forge, top, SBOM, b'{"spdx":1}'),
        "of a child": attach(forge, amd, SBOM, b'{"spdx":2}'),
        "att": tagged(forge, top, "att", b"attestation"),
        "old sbom": tagged(forge, top, "sbom", b"components"),
        "inside": inside,
    }
    expected["of the sbom"] = attach(forge, expected["sbom"], MEDIA_BUNDLE, b"signature of it")
    expected["of the old sbom"] = tagged(forge, expected["old sbom"], "sig", b"signature")
    attach(forge, arm, SBOM, b'{"spdx":"arm"}')
    attach(forge, top, ARTIFACT_EVIDENCE, b'{"evidence":"of another store"}')
    store = Store.open(tmp_path / "store")
    return Place(forge, signing, store, RecordingSink(), top, (amd, arm), expected)


def blobs_of(layout: Layout, artifact: Descriptor) -> list[Digest]:
    manifest = layout.read_manifest(artifact)
    config: Any = manifest
    return [config.config.digest, *(layer.digest for layer in config.layers)]


def test_everything_attached_comes_with_its_blobs_and_can_be_found(place: Place) -> None:
    assert place.gather() == len(place.expected) + 1  # and the older signature
    layout = place.store.layout
    for what, artifact in place.expected.items():
        assert layout.has(artifact.digest), what
        assert all(layout.has(digest) for digest in blobs_of(layout, artifact)), what
    own = LayoutSource.open(layout.path)
    reference = place.forge.reference(NAME)
    listed = {entry.artifact_type for entry in own.referrers(reference, place.top.digest)}
    assert listed == {MEDIA_BUNDLE, SBOM, ARTIFACT_EVIDENCE}
    (of_child,) = own.referrers(reference, place.children[0].digest)
    assert of_child.digest == place.expected["of a child"].digest
    (signature,) = own.referrers(reference, place.expected["sbom"].digest)
    assert signature.digest == place.expected["of the sbom"].digest
    for suffix, what in (("att", "att"), ("sbom", "old sbom")):
        tag = f"sha256-{place.top.digest.hex}.{suffix}"
        assert own.resolve(reference.with_tag(tag)).digest == place.expected[what].digest
    assert place.warnings() == []


def test_another_stores_evidence_and_other_architectures_stay_behind(place: Place) -> None:
    place.gather()
    blobs = {path.read_bytes() for path in place.store.layout.blobs_dir.iterdir()}
    assert b'{"evidence":"of another store"}' not in blobs
    assert b'{"spdx":"arm"}' not in blobs
    assert b'{"spdx":2}' in blobs


def test_nothing_new_changes_nothing(place: Place) -> None:
    place.gather()
    before = (place.store.path / "index.json").stat()
    assert place.gather() == len(place.expected) + 1
    after = (place.store.path / "index.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_look_writes_manifests_to_the_scratch_and_nothing_to_the_store(
    place: Place, tmp_path: Path
) -> None:
    scratch = Layout.create(tmp_path / "scratch")
    place.gather(scratch=scratch)
    assert scratch.has(place.top.digest)
    assert scratch.has(place.children[0].digest)
    assert not scratch.has(place.children[1].digest)
    for what, artifact in place.expected.items():
        assert scratch.has(artifact.digest), what
    (layer,) = blobs_of(scratch, place.expected["sbom"])[1:]
    assert not scratch.has(layer)
    assert list(place.store.layout.blobs_dir.iterdir()) == []
    assert place.store.layout.entries() == ()


def test_a_broken_attachment_is_left_out_with_a_word(place: Place) -> None:
    (_, layer) = blobs_of(place.forge.layout, place.expected["sbom"])
    place.forge.layout.blob_path(layer).unlink()
    place.gather()
    assert not place.store.layout.has(place.expected["sbom"].digest)
    assert place.store.layout.has(place.expected["att"].digest)
    (warning,) = place.warnings()
    assert f"{SBOM} {place.expected['sbom'].digest.short} is not kept" in warning


def test_a_large_attachment_is_streamed(place: Place) -> None:
    large = attach(place.forge, place.top, SBOM, bytes(5 * 1024**2))
    place.gather()
    (_, layer) = blobs_of(place.store.layout, large)
    assert place.store.layout.intact(layer, 5 * 1024**2)


def test_an_attestation_is_no_architecture_of_the_image(place: Place) -> None:
    place.gather()
    (held,) = held_images(place.store)
    assert held.arches == ("amd64",)


def test_any_image_is_had_by_its_own_name_and_passes_the_same_gate(place: Place) -> None:
    top = place.forge.image("cni/flannel", "v1", {"bin": b"1"}, ("amd64", "arm64"))
    reference = place.forge.reference("cni/flannel", "v1")
    with pytest.raises(VerificationRefused):
        place.sources().survey_reference(reference)
    place.forge.sign_bundle("cni/flannel", top, place.signing.bundle(top.digest))
    assert place.sources().survey_reference(reference).image.digest == top.digest
    assert place.sources().obtain_reference(reference, ("arm64",)).digest == top.digest
    offline = place.sources(offline=True)
    assert offline.obtain_reference(reference, ("arm64",)).digest == top.digest
    with pytest.raises(NotFound, match=r"has no .*flannel:v1 for arm64\+amd64"):
        offline.obtain_reference(reference, ("arm64", "amd64"))
    with pytest.raises(NotFound, match="the store has no") as caught:
        offline.obtain_reference(place.forge.reference("cni/cilium", "v1"))
    assert "--from" in caught.value.hint
    with pytest.raises(NotFound, match="riscv64"):
        place.sources().obtain_reference(reference, ("riscv64",))
