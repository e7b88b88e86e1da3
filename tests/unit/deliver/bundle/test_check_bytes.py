"""What bytes have to be there: parts of a set, damage, and what a delta leaves out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Blob, Bundle, Piece, Rebuild
from local_imager.errors import InputError
from local_imager.oci.model import MEDIA_INDEX, Descriptor, Digest
from local_imager.schematic.parse import parse_schematic
from local_imager.store.store import Store
from tests.bundlefiles import Sample
from tests.unit.deliver.bundle.nearbundles import (
    IMAGER,
    INSTALLER,
    ISO,
    PLAIN,
    Near,
    in_parts,
    inventory,
    layer_of,
    leaving_out,
    only_lack,
    rich,
)
from tests.unit.sources.forge import REGISTRY


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Near:
    return Near(tmp_path_factory.mktemp("near"))


@pytest.fixture
def near(upstream: Near, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
    """The near side with the upstream that all tests share: add nothing to it."""
    return upstream.alone(tmp_path, monkeypatch)


# -- parts --------------------------------------------------------------------------------------


@pytest.fixture
def cut(near: Near) -> Sample:
    """Two parts; the catalogue of extensions, which plans are read from, is cut."""
    return in_parts(rich(near), layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0"))


def test_parts_in_any_order(near: Near, cut: Sample) -> None:
    paths = [near.write(n, cut.part(n)) for n in (1, 2)]
    for order in (paths, paths[::-1], [*paths, paths[0]]):
        found = near.check(order)
        assert found.complete and found.parts == 2 and not found.missing_parts


def test_a_part_that_was_not_given(near: Near, cut: Sample) -> None:
    found = near.check([near.write(1, cut.part(1))])
    assert [part.number for part in found.missing_parts] == [2]
    assert f"{REGISTRY}/siderolabs/extensions:v1.9.0" in found.missing_parts[0].items
    assert not found.complete and not found.refused
    assert {"blobs"} <= {one.kind for one in found.lacks()}
    lack = next(one for one in found.lacks() if one.role == "extensions-catalogue")
    assert lack.text == "1 blob of it is in part 2 of 2, not given here"
    assert lack.remedy == "give part 2 too"
    assert lack.size_bytes > 0


def test_what_no_build_needs_must_come_whole_too(near: Near) -> None:
    """Proof of a build is not proof of the bundle: a part or a byte of it may be missing still."""
    sample = rich(near)
    spare = layer_of(near, f"{REGISTRY}/siderolabs/installer:v1.9.0")
    (pieces,) = sample.bundle.parts
    last = [piece for piece in pieces if piece.blob == spare]
    parts = sample.split([piece for piece in pieces if piece.blob != spare], last)
    found = near.check([near.write(1, parts.part(1))], ISO)
    assert [proof.complete for proof in found.assets] == [True]
    assert [part.number for part in found.missing_parts] == [2]
    assert not found.complete and not found.refused
    broken = bytearray(parts.part(2))
    broken[bytes(broken).index(sample.contents[spare])] ^= 1
    found = near.check([near.write(1, parts.part(1)), near.write(2, bytes(broken))], ISO)
    assert [proof.complete for proof in found.assets] == [True]
    assert not found.complete and found.refused


def test_a_part_of_another_bundle(near: Near, cut: Sample) -> None:
    other = near.bundle(near.roots(near.requirements(parse_schematic(PLAIN))))
    with pytest.raises(InputError, match="belongs to another bundle"):
        near.check([near.write(1, cut.part(1)), near.write(2, other.part())])


def test_segments_that_are_right_and_do_not_give_the_blob(near: Near, cut: Sample) -> None:
    """A manifest may be wrong in itself; each segment is what it says, the blob is not."""
    digest = layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0")
    wrong = bytes(len(cut.contents[digest]))
    parts = tuple(
        tuple(
            replace(p, digest=Digest.of(wrong[p.offset : p.offset + p.size_bytes]))
            if p.blob == digest
            else p
            for p in part
        )
        for part in cut.bundle.parts
    )
    sample = Sample(replace(cut.bundle, parts=parts), {**cut.contents, digest: wrong})
    found = near.check(sample)
    assert found.refused
    (file,) = found.damaged
    assert "do not give" in file.faults[0].text
    assert f"{REGISTRY}/siderolabs/extensions:v1.9.0" in file.faults[0].affects


def test_a_cut_blob_that_is_not_kept_is_proven_whole_too(near: Near) -> None:
    sample = in_parts(rich(near), layer_of(near, f"{IMAGER}:v1.13.0"))
    assert near.check(sample).complete
    digest = layer_of(near, f"{IMAGER}:v1.13.0")
    broken = bytearray(sample.part(2))
    at = bytes(broken).index(sample.contents[digest][-40:])
    broken[at] ^= 1
    found = near.check([near.write(1, sample.part(1)), near.write(2, bytes(broken))])
    assert found.refused and [file.faults[0].kind for file in found.damaged] == ["bit-flip"]
    assert all(one.text.endswith("damaged in the bundle") for one in found.lacks())
    again = near.check(
        [near.write(1, sample.part(1)), near.write(2, bytes(broken)), near.write(3, sample.part(2))]
    )
    assert not list(again.lacks()), "a whole copy of the part came too"
    assert again.refused and len(again.damaged) == 1


# -- damage -------------------------------------------------------------------------------------


def test_a_bit_that_flipped(near: Near) -> None:
    sample = rich(near)
    data = bytearray(sample.part())
    layer = sample.contents[layer_of(near, f"{REGISTRY}/siderolabs/installer:v1.9.0")]
    data[bytes(data).index(layer) + 20] ^= 1
    found = near.check(bytes(data))
    assert found.refused and not found.complete
    assert [file.faults[0].kind for file in found.damaged] == ["bit-flip"]
    assert [proof.complete for proof in found.assets] == [True, False]
    lack = only_lack(found)
    assert (lack.role, lack.kind) == ("base-installer", "blobs")
    assert lack.remedy.startswith("copy the bundle once more")


def test_a_document_that_is_damaged(near: Near) -> None:
    sample = rich(near)
    entry = near.forge.layout.resolve(f"{REGISTRY}/siderolabs/gvisor:1.0")
    assert entry is not None
    data = bytearray(sample.part())
    data[bytes(data).index(sample.contents[entry.digest]) + 5] ^= 1
    found = near.check(bytes(data), ISO)
    assert found.refused
    assert only_lack(found).role == "extension"


def test_a_manifest_that_is_damaged_leaves_nothing_to_prove(near: Near) -> None:
    data = bytearray(rich(near).part())
    data[600] ^= 1
    found = near.check(bytes(data))
    assert found.refused and not found.assets and found.set_digest is None


@pytest.mark.parametrize("index", [b"[]", b"no json", b'{"manifests": [{"digest": "x"}]}'])
def test_an_index_that_is_none(index: bytes, near: Near) -> None:
    """Its digest is right, so nothing happened to it on the way: it was made so."""
    descriptor = Descriptor.of(index, MEDIA_INDEX)
    sample = rich(near, change=lambda bundle: replace(bundle, index=descriptor))
    sample.contents[descriptor.digest] = index
    found = near.check(sample)
    assert found.refused and not found.assets
    (file,) = found.damaged
    assert file.faults[0].member == "index.json"


def test_an_index_that_names_another_image(near: Near) -> None:
    """As an import would, the check believes neither the index nor the manifest alone."""
    sample = rich(near)
    index = sample.contents[sample.bundle.index.digest]
    names = [f"{REGISTRY}/siderolabs/{name}:v1.9.0" for name in ("imager", "installer")]
    swapped = index.replace(names[0].encode(), b"?").replace(names[1].encode(), names[0].encode())
    swapped = swapped.replace(b"?", names[1].encode())
    descriptor = Descriptor.of(swapped, MEDIA_INDEX)
    changed = Sample(
        replace(sample.bundle, index=descriptor), {**sample.contents, descriptor.digest: swapped}
    )
    found = near.check(changed, INSTALLER)
    assert found.refused
    assert {one.role for one in found.lacks()} == {"base", "base-installer"}
    assert all("name two images" in one.text for one in found.lacks())


def test_what_is_no_bundle(near: Near) -> None:
    with pytest.raises(InputError):
        near.check(b"no tar at all" * 100)


# -- deltas -------------------------------------------------------------------------------------


def test_a_delta_is_complete_for_the_far_side_that_it_leans_on(near: Near) -> None:
    base = layer_of(near, f"{IMAGER}:v1.9.0")
    sample = rich(near, change=leaving_out(base))
    found = near.check(sample, ISO)
    assert {(one.kind, one.role) for one in found.lacks()} >= {("blobs", "base")}
    lack = next(one for one in found.lacks() if one.role == "base")
    assert "left out of the bundle" in lack.text and "delta" in lack.text
    assert "--have" in lack.remedy and lack.size_bytes == len(
        near.forge.layout.read_blob(base, max_bytes=10**6)
    )
    far = inventory(near, base)
    told = near.check(sample, ISO, have=far)
    assert told.complete and told.far_side == far.digest
    other = near.check(sample, ISO, have=inventory(near))
    assert not other.complete
    assert "the inventory does not list it" in next(iter(other.lacks())).text
    lying = Inventory({base: 1})
    assert not near.check(sample, ISO, have=lying).complete


def test_a_catalogue_on_the_far_side_is_read_from_the_near_sides_store(near: Near) -> None:
    catalogue = layer_of(near, f"{REGISTRY}/siderolabs/extensions:v1.9.0")
    sample = rich(near, change=leaving_out(catalogue))
    far = inventory(near, catalogue)
    elsewhere = replace(near.settings, store=near.folder / "other")
    found = near.check(sample, ISO, have=far, settings=elsewhere)
    assert {one.kind for one in found.lacks()} == {"catalogue"}
    assert "--store DIR" in next(iter(found.lacks())).remedy
    layout = Store.open(near.settings.store).layout
    layout.put_file(near.forge.layout.blob_path(catalogue), "", move=False)
    assert near.check(sample, ISO, have=far).complete


def test_a_blob_that_is_rebuilt_needs_its_base(near: Near) -> None:
    layer, base = layer_of(near, f"{IMAGER}:v1.13.0"), Digest.of(b"an older layer")
    patch = b"the way from there"
    blob = Blob(Digest.of(patch), len(patch), "patch")

    def change(bundle: Bundle) -> Bundle:
        bundle = leaving_out(layer)(bundle)
        way = Rebuild(base, blob.digest, "zstd-patch")
        blobs = (replace(b, rebuild=way) if b.digest == layer else b for b in bundle.blobs)
        piece = Piece(blob.digest, 0, len(patch), blob.digest, True)
        return replace(bundle, blobs=(*blobs, blob), parts=((*bundle.parts[0], piece),))

    sample = rich(near, change=change)
    sample.contents[blob.digest] = patch
    have = Inventory({base: 14})
    assert near.check(sample, ISO, have=have).complete
    lack = next(one for one in near.check(sample, ISO, have=Inventory({})).lacks())
    assert "to be rebuilt from a blob expected on the far side" in lack.text
