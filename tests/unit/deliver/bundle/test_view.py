"""What a bundle says of itself, summed up."""

from __future__ import annotations

import json

from local_imager.deliver.bundle.look.view import Amount, view_of
from tests.unit.deliver.bundle.samples import (
    ASSET,
    IMAGER,
    LOCK,
    TOOLS,
    as_delta,
    digest,
    in_two_parts,
    sample,
)


def test_a_total_counts_a_shared_blob_once_and_an_image_counts_all_it_needs() -> None:
    view = view_of(sample())
    assert view.needed == view.carried == Amount(7, 122_400)
    assert [(one.item.name, one.size_bytes) for one in view.images] == [
        (IMAGER, 80_900),
        (TOOLS, 10_700),
    ]
    assert [(one.item.name, one.size_bytes) for one in view.assets] == [(ASSET, 40_500)]
    assert [(one.item.name, one.size_bytes) for one in view.files] == [(LOCK, 300)]
    assert view.documents == Amount(4, 2_400)
    assert view.presumed == view.rebuilt == view.patches == Amount(0, 0)


def test_the_biggest_blobs_come_first_with_those_who_need_them() -> None:
    found = view_of(sample()).biggest
    assert [one.blob.purpose for one in found[:3]] == [
        "the imager layer",
        "the iso",
        "the shared layer",
    ]
    assert found[2].needed_by == (IMAGER, TOOLS)
    assert len(found) == 5


def test_what_each_part_holds() -> None:
    parts = view_of(in_two_parts()).parts
    assert [(part.number, part.size_bytes) for part in parts] == [(1, 60_000), (2, 60_000)]
    assert parts[0].items == (IMAGER, TOOLS)
    assert parts[1].items == (IMAGER, ASSET)


def test_a_delta_says_what_is_presumed_and_what_is_rebuilt() -> None:
    view = view_of(as_delta())
    assert view.needed == Amount(7, 122_400)
    assert view.carried == Amount(5, 72_400)
    assert view.presumed == Amount(1, 10_000)
    assert view.rebuilt == Amount(1, 40_000)
    assert view.patches == Amount(1, 1_500)
    # A patch in a part belongs to the item that needs what is made with it.
    assert view.parts[0].items == (IMAGER, ASSET)


def test_the_json_object_has_every_figure() -> None:
    document = json.loads(json.dumps(view_of(as_delta()).as_dict()))
    assert document["since"] == str(digest("far.json"))
    assert document["facts"]["versions"] == ["v1.13.0"]
    (imager, _), (asset,) = document["images"], document["assets"]
    assert imager["roles"] == ["base", "builder"] and imager["size_bytes"] == 80_900
    assert imager["digest"] == str(digest("imager manifest"))
    assert asset["name"] == ASSET and asset["signer"] == ""
    assert document["rebuilt"] == {"blobs": 1, "size_bytes": 40_000}
    assert document["contents_of_parts"] == [
        {"number": 1, "size_bytes": 71_500, "items": [IMAGER, ASSET]}
    ]
    assert document["biggest"][1]["carried"] is False
