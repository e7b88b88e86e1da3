"""What two bundles differ in, and what a far side lacks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from local_imager.deliver.bundle.form.model import Bundle
from local_imager.deliver.bundle.look.diff import differences, far_side_lacks, lacking
from local_imager.deliver.bundle.look.view import Amount
from tests.unit.deliver.bundle.samples import (
    ASSET,
    IMAGER,
    LOCK,
    SIGNER,
    TOOLS,
    as_delta,
    blob,
    changed,
    digest,
    in_two_parts,
    item,
    sample,
)

SHORT_SIGNER = SIGNER[:19]


def texts(old: Bundle, new: Bundle) -> list[str]:
    return [found.text for found in differences(old, new)]


def test_the_same_bundle() -> None:
    assert differences(sample(), sample()) == ()


def test_new_and_gone() -> None:
    old = sample()
    new = replace(old, items=(*old.items[1:], item("document", "policy.toml", blob("lock", 300))))
    assert texts(old, new) == [
        f"image {IMAGER}: gone ({str(digest('imager manifest'))[:19]})",
        f"document policy.toml: new ({str(digest('lock'))[:19]})",
    ]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("signer", "a@b.test", f"image {IMAGER}, SIGNER: {SHORT_SIGNER} → a@b.test"),
        ("signer", "", f"image {IMAGER}, SIGNER: {SHORT_SIGNER} → none"),
        ("arches", ("amd64", "arm64"), f"image {IMAGER}, architectures: amd64 → amd64, arm64"),
        ("roles", ("base",), f"image {IMAGER}, roles: base, builder → base"),
    ],
)
def test_a_changed_field(field: str, value: object, text: str) -> None:
    assert texts(sample(), changed(sample(), IMAGER, **{field: value})) == [text]


def test_another_signature_of_the_same_image() -> None:
    blobs = sample().items[0].blobs
    signed = changed(sample(), IMAGER, blobs=(*blobs[:2], digest("lock"), digest("tools")))
    assert texts(sample(), signed) == [f"image {IMAGER}, blobs: 1 gone → 2 new"]


def test_another_image_of_another_size() -> None:
    top = replace(sample().items[0].descriptor, digest=digest("iso"))
    other = changed(sample(), IMAGER, descriptor=top, blobs=(digest("iso"),))
    before, after = (str(digest(name))[:19] for name in ("imager manifest", "iso"))
    assert texts(sample(), other) == [
        f"image {IMAGER}, digest: {before} → {after}",
        f"image {IMAGER}, size: 80900 bytes → 40000 bytes",
    ]


def test_facts_and_form_come_last() -> None:
    new = replace(in_two_parts(), facts={**sample().facts, "versions": ("v1.9.0", "v1.13.0")})
    assert texts(sample(), new) == ["versions: v1.13.0 → v1.9.0, v1.13.0", "parts: 1 → 2"]
    since = str(digest("far.json"))[:19]
    assert texts(sample(), as_delta()) == [f"leans on the inventory: none → {since}"]


def test_the_json_object_has_whole_digests() -> None:
    new = replace(sample(), items=sample().items[1:])
    (found,) = json.loads(json.dumps([one.as_dict() for one in differences(sample(), new)]))
    assert (found["kind"], found["aspect"]) == ("image", "item")
    assert found["old"] == str(digest("imager manifest")) and found["new"] == ""


def test_what_is_lacking_counts_a_blob_once() -> None:
    had = {digest("imager manifest"), digest("imager layer"), digest("lock")}
    found = lacking(sample(), had)
    assert found.needed == Amount(7, 122_400)
    assert found.missing == Amount(4, 51_200)
    assert [(one.item.name, one.missing) for one in found.items] == [
        (IMAGER, Amount(1, 10_000)),
        (TOOLS, Amount(2, 10_700)),
        (ASSET, Amount(2, 40_500)),
    ]
    assert LOCK not in {one.item.name for one in found.items}
    document = json.loads(json.dumps(found.as_dict()))
    assert document["items"][1]["missing"] == {"blobs": 2, "size_bytes": 10_700}


def test_a_delta_lacks_what_it_does_not_carry_where_nothing_is() -> None:
    # What is measured is the content after an import, not the file; patches are no content.
    assert lacking(as_delta(), frozenset()).missing == Amount(7, 122_400)
    assert lacking(as_delta(), {one.digest for one in sample().blobs}).missing == Amount(0, 0)


def test_what_a_far_side_lacks_leaves_out_what_no_store_keeps() -> None:
    listed = blob("list", 400, document=True)
    purpose = f"list of referrers of {TOOLS}"
    bundle = sample()
    bundle = replace(bundle, blobs=(replace(listed, purpose=purpose), *bundle.blobs))
    bundle = changed(bundle, TOOLS, blobs=(*bundle.items[1].blobs, listed.digest))
    had = {one.digest for one in sample().blobs} - {digest("lock"), digest("tools")}
    found = far_side_lacks(bundle, had)
    assert found.needed == Amount(6, 122_100)
    assert found.missing == Amount(1, 700)
    assert [(one.item.name, one.needed) for one in found.items] == [(TOOLS, Amount(2, 10_700))]
