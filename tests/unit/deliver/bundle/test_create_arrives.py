"""What is created arrives: everything attached to an image is found on the far side again."""

from __future__ import annotations

from pathlib import Path

from local_imager.deliver.bundle.far.importing import import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.deliver.bundle.near.create import Form, create_bundle
from local_imager.deliver.bundle.near.order import Order
from local_imager.oci.layout_source import LayoutSource
from local_imager.pipeline.factory import Factory
from local_imager.settings import Settings, TrustEntries
from local_imager.sources.inventory import held_images
from local_imager.store.fsck import check
from local_imager.store.store import Store
from tests.unit.sources.forge import REGISTRY
from tests.unit.sources.test_keep import NAME, Place, place

__all__ = ["place"]


def test_all_that_is_attached_arrives_and_can_be_found(place: Place, tmp_path: Path) -> None:
    entry = {"pattern": f"{REGISTRY}/**", "key": place.signing.pem}
    settings = Settings(
        store=place.store.path,
        registry=REGISTRY,
        source=str(place.forge.layout.path),
        trust=(TrustEntries("test", tmp_path, (entry,), True),),
        jobs=2,
    )
    reference = place.forge.reference(NAME, "v1.0.0")
    order = Order((), ("amd64",), ("amd64",), images=(reference,)).check()
    factory = Factory(settings, sink=place.sink)
    form = Form(tmp_path / "site.tar")
    created = create_bundle(factory, order, form, place.sink)
    assert place.warnings() == []
    far = Store.open(tmp_path / "far")
    files = [str(part.path) for part in created.parts]
    import_files(files, far, Wishes(place.signing.policy()), place.sink)
    (held,) = held_images(far)
    assert (held.reference, held.descriptor.digest) == (reference, place.top.digest)
    for what, artifact in place.expected.items():
        assert far.layout.intact(artifact.digest), what
    own = LayoutSource.open(far.path)
    found = {entry.digest for entry in own.referrers(reference, place.top.digest)}
    assert {place.expected["signature"].digest, place.expected["sbom"].digest} <= found
    (signature,) = own.referrers(reference, place.expected["sbom"].digest)
    assert signature.digest == place.expected["of the sbom"].digest
    assert check(far).clean
