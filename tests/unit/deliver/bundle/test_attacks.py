"""Attacks on the side that reads: files, signatures and lists that somebody hostile wrote."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.contents import ImageRoot
from local_imager.deliver.bundle.importing import Handout, import_files
from local_imager.deliver.bundle.intake import Wishes
from local_imager.deliver.bundle.report import ImportReport
from local_imager.deliver.bundle.signing import read_signature
from local_imager.errors import InputError, LocalImagerError
from local_imager.events import RecordingSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import (
    MEDIA_EMPTY,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Reference,
)
from local_imager.oci.names import fallback_tag
from local_imager.sources.fetch import held_descriptor
from local_imager.sources.verify import verify_image
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide
from tests.unit.sources.forge import MEDIA_BUNDLE, REGISTRY, as_json

REPOSITORY = f"{REGISTRY}/siderolabs/imager"


class Attacker(NearSide):
    """Has images that somebody else signed, and no key: all its bundles are unsigned."""

    def single(self, tag: str) -> ImageRoot:
        """Add a signed image that is one manifest, without an index."""
        top = self.forge.manifest({"noise": os.urandom(3000)})
        plain = Descriptor(top.media_type, top.digest, top.size_bytes)
        self.store.layout.set_ref(f"{REPOSITORY}:{tag}", plain)
        self.forge.sign_legacy("siderolabs/imager", plain, self.signing)
        self.forge.sign_bundle("siderolabs/imager", plain, self.signing.bundle(plain.digest))
        root = ImageRoot(f"{REPOSITORY}:{tag}", plain, ())
        self.images.append(root)
        return root

    def artifact(self, number: int, subject: Descriptor, kind: str = MEDIA_BUNDLE) -> Descriptor:
        """Something worthless that says it is attached to a manifest."""
        return self.attached(self.store.layout.put_bytes(b"junk %d" % number, kind), subject, kind)

    def attached(self, layer: Descriptor, subject: Descriptor, kind: str) -> Descriptor:
        """An artifact of one layer that is attached to a manifest."""
        config = self.store.layout.put_bytes(b"{}", MEDIA_EMPTY)
        body = {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "artifactType": kind,
            "config": config.as_dict(),
            "layers": [layer.as_dict()],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size_bytes).as_dict(),
        }
        return self.store.layout.put_bytes(as_json(body), MEDIA_MANIFEST, artifact_type=kind)

    def listed(self, subject: Digest) -> list[Descriptor]:
        """What is listed as attached."""
        return [*LayoutSource.open(self.store.path).referrers(Reference.parse(REPOSITORY), subject)]

    def enlist(self, subject: Digest, entries: Sequence[Descriptor]) -> None:
        """Write a list of what is attached."""
        body = {"schemaVersion": 2, "mediaType": MEDIA_INDEX}
        data = as_json({**body, "manifests": [one.as_dict() for one in entries]})
        self.store.layout.set_ref(
            f"{REPOSITORY}:{fallback_tag(subject)}", self.store.layout.put_bytes(data, MEDIA_INDEX)
        )


@pytest.fixture
def near(tmp_path: Path) -> Attacker:
    return Attacker(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def take(near: Attacker, store: Store, files: Sequence[Path], **more: Any) -> ImportReport:
    """Import under a policy that knows the images' key and has no rule for bundles."""
    policy = more.pop("policy", None) or near.signing.policy()
    wishes, handout = Wishes(policy, **more), Handout()
    names = [str(path) for path in files]
    (report,) = import_files(names, store, wishes, RecordingSink(), handout=handout).reports
    return report


def refusal(near: Attacker, store: Store, name: str) -> str:
    """Why the store alone does not verify an image; empty when it does."""
    held = held_descriptor(store.layout, Reference.parse(name))
    assert held is not None
    try:
        source = LayoutSource.open(store.path)
        verify_image(source, Reference.parse(name), held, near.signing.policy())
    except LocalImagerError as error:
        return error.message
    return ""


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".sig", ".att"])
def test_a_signed_image_under_the_tag_of_signatures_does_not_replace_them(
    near: Attacker, store: Store, suffix: str
) -> None:
    victim, other = near.image("siderolabs/imager"), near.image("siderolabs/tools")
    take(near, store, near.write(signed=False))
    before = {entry.ref_name: entry.digest for entry in store.layout.entries()}
    victims, tools = near.store.layout.resolve(victim), near.store.layout.resolve(other)
    assert victims is not None and tools is not None
    near.forge.sign_legacy("siderolabs/imager", tools, near.signing)
    near.forge.sign_bundle("siderolabs/imager", tools, near.signing.bundle(tools.digest))
    shadow = f"{REPOSITORY}:{fallback_tag(victims.digest)}{suffix}"
    near.images = [ImageRoot(shadow, Descriptor(*_plain(tools)), ("amd64",))]
    report = take(near, store, near.write("shadow.tar", signed=False))
    assert [(one.state, one.code) for one in report.outcomes] == [("refused", "malformed")]
    assert before.items() <= {e.ref_name: e.digest for e in store.layout.entries()}.items()
    assert refusal(near, store, victim) == ""


def _plain(entry: Descriptor) -> tuple[str, Digest, int]:
    return entry.media_type, entry.digest, entry.size_bytes


# -- the signature file ------------------------------------------------------------------------


def test_a_fifo_where_the_signature_is_looked_for_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.tar.sigstore.json")
    found: list[object] = []

    def read() -> None:
        try:
            found.append(read_signature([tmp_path / "site.tar"]))
        except InputError as error:
            found.append(error.message)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(10)
    assert len(found) == 1 and "not a regular file" in str(found[0])


def test_a_signature_that_a_person_names_may_be_a_fifo(tmp_path: Path) -> None:
    place = tmp_path / "fifo"
    os.mkfifo(place)
    writer = threading.Thread(target=lambda: place.write_bytes(b"{}"), daemon=True)
    writer.start()
    assert read_signature((), place) == b"{}"
    writer.join()


def test_a_signature_that_has_no_end_is_read_to_its_ceiling(tmp_path: Path) -> None:
    (tmp_path / "site.tar.sigstore.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file"):
        read_signature([tmp_path / "site.tar"])
