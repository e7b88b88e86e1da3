"""``bundle.json`` and ``part.json``: one spelling, read strictly, contradictions refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from local_imager.deliver.bundle.form import consistency
from local_imager.deliver.bundle.form import manifest as module
from local_imager.deliver.bundle.form.manifest import (
    parse_bundle,
    parse_label,
    render_bundle,
    render_label,
)
from local_imager.deliver.bundle.form.model import (
    MAX_BLOBS,
    MAX_ITEMS,
    MAX_MANIFEST_BYTES,
    Blob,
    Bundle,
    PartLabel,
    Rebuild,
)
from local_imager.errors import SourceError
from local_imager.oci.model import Digest, canonical_json
from tests.bundlefiles import Sample, make_sample

SAMPLE = make_sample()
Document = Any
OTHER = Digest.of(b"other")


def document() -> Document:
    return json.loads(SAMPLE.manifest)


def refused(changed: Document) -> str:
    with pytest.raises(SourceError) as caught:
        parse_bundle(canonical_json(changed))
    assert caught.value.code == "malformed"
    return caught.value.message


def test_what_is_written_reads_as_the_same() -> None:
    assert parse_bundle(SAMPLE.manifest) == SAMPLE.bundle
    assert render_bundle(parse_bundle(SAMPLE.manifest)) == SAMPLE.manifest


def test_the_spelling_is_canonical_json_whatever_the_length() -> None:
    many = make_sample({f"a{n}": b"%d" % n for n in range(700)})
    parts = many.split([many.whole(f"a{n}") for n in range(512)], [many.whole("a600")])
    empty = replace(SAMPLE.bundle, items=(), blobs=(), parts=((),), since=OTHER, facts={})
    for bundle in (SAMPLE.bundle, many.bundle, parts.bundle, empty):
        data = render_bundle(bundle)
        assert canonical_json(json.loads(data)) == data
    assert parse_bundle(many.manifest) == many.bundle


def test_every_field_travels() -> None:
    bundle = SAMPLE.bundle
    base, rebuilt = Digest.of(b"base"), bundle.blobs[-1]
    payload = Blob(Digest.of(b"delta"), 5, "what to rebuild it with")
    gone = replace(rebuilt, carried=False, rebuild=Rebuild(base, payload.digest, "chunks"))
    item = replace(bundle.items[0], roles=("base",), arches=("amd64",), signer="key 1")
    pieces = tuple(p for p in bundle.parts[0] if p.blob != rebuilt.digest)
    sample = Sample(bundle, {**SAMPLE.contents, payload.digest: b"delta"})
    whole = (replace(pieces[0], blob=payload.digest, size_bytes=5, digest=payload.digest),)
    full = replace(
        sample.bundle,
        items=(item, bundle.items[1]),
        blobs=(*bundle.blobs[:-1], payload, gone),
        parts=(pieces, whole),
        since=OTHER,
        facts={"versions": ("v1.13.0", "v1.12.0"), "arches": ()},
    )
    assert parse_bundle(render_bundle(full)) == full
    assert [i.name for i in full.items_with(payload.digest)] == [bundle.items[1].name]


def test_segments_over_several_parts_travel() -> None:
    split = SAMPLE.split(
        [SAMPLE.segment("a1", 0, 300)],
        [SAMPLE.segment("a1", 300, 700), SAMPLE.whole("s1")],
        [SAMPLE.whole("b1"), SAMPLE.whole("b2")],
    )
    assert parse_bundle(split.manifest) == split.bundle


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (SAMPLE.manifest + b"\n", "spelt"),
        (b" " + SAMPLE.manifest, "spelt"),
        (json.dumps(document()).encode(), "spelt"),
        (SAMPLE.manifest.replace(b'"format":1', b'"format":1.0'), "whole number"),
        (SAMPLE.manifest.replace(b'"format":1', b'"format":1,"format":1'), "twice"),
        (SAMPLE.manifest.replace(b'"format":1', b'"format":0'), "format 0"),
        (SAMPLE.manifest.replace(b"bundle.v1+json", b"bundle.v0+json"), "mediaType"),
        (SAMPLE.manifest.replace(b"bundle.v1+json", b"parcel.v2+json"), "mediaType"),
        (SAMPLE.manifest.replace(b"registry", b"\\u0072egistry", 1), "spelt"),
        (SAMPLE.manifest.decode().encode("utf-16"), "spelt"),
        (b"[" * 100_000, "JSON"),
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "missing"),
    ],
)
def test_another_spelling_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=why) as caught:
        parse_bundle(data)
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", 2), ("mediaType", "application/vnd.local-imager.bundle.v2+json")],
)
def test_a_newer_format_says_what_to_do(key: str, value: object) -> None:
    changed = document()
    changed[key] = value
    with pytest.raises(SourceError, match="newer version") as caught:
        parse_bundle(canonical_json(changed))
    assert caught.value.code == "newer-format"
    assert caught.value.hint == "made by a newer local-imager: use that version"


def place(*path: Any, value: Any) -> Callable[[Document], None]:
    """Put a value at a path of the document."""

    def change(changed: Document) -> None:
        for key in path[:-1]:
            changed = changed[key]
        changed[path[-1]] = value

    return change


CHANGES: list[tuple[Callable[[Document], None], str]] = [
    (place("more", value=1), "not a field"),
    (place("blobs", 0, "more", value=1), "not a field"),
    (place("items", 0, "more", value=1), "not a field"),
    (place("mediaType", value="text/plain"), "mediaType"),
    (place("index", "mediaType", value="text/plain"), "index"),
    (place("index", "size", value=1 << 40), "index"),
    (place("index", value=None), "object"),
    (place("blobs", 0, "digest", value="sha256:AB"), "hex digits"),
    (place("blobs", 0, "digest", value=7), "hex digits"),
    (place("blobs", 0, "size", value=-1), "whole number"),
    (place("blobs", 0, "size", value=True), "whole number"),
    (place("blobs", 0, "size", value=1 << 60), "whole number"),
    (place("blobs", 0, "purpose", value="two\nlines"), "printable"),
    (place("blobs", 0, "purpose", value=""), "printable"),
    (place("blobs", 0, "purpose", value="\ud800"), "printable"),
    (place("blobs", 0, "document", value=1), "true or false"),
    (place("blobs", 0, "document", value=False), "differ about its entry|documents"),
    (place("blobs", 2, "document", value=True), "documents|exactly once"),
    (place("blobs", 2, "carried", value=False), "exactly once"),
    (place("blobs", 2, "carried", value=True), "spelt"),
    (place("blobs", 0, "size", value=100_000_000), "larger than"),
    (place("blobs", value={}), "list"),
    (place("items", 0, "kind", value="program"), "kind"),
    (place("items", 0, "name", value="\x1b[2J"), "printable"),
    (place("items", 0, "blobs", 0, value=99), "place"),
    (place("items", 0, "blobs", 0, value=-1), "place"),
    (place("items", 0, "blobs", 0, value=True), "place"),
    (place("items", 0, "blobs", value=[]), "own entry"),
    (place("items", 0, "blobs", value=[1, 1]), "twice|own entry"),
    (place("items", 0, "descriptor", "size", value=3), "differ"),
    (place("items", 0, "descriptor", "digest", value=str(OTHER)), "own entry"),
    (place("items", 0, "descriptor", "extra", value=1), "spelt"),
    (place("items", 0, "roles", value="base"), "list"),
    (place("items", 0, "roles", value=[]), "spelt"),
    (place("items", value=[]), "no item needs"),
    (place("parts", value=[]), "no parts"),
    (place("parts", value=[[]]), "exactly once"),
    (place("parts", value=[[2, 3, 4, 5], []]), "carries nothing"),
    (place("parts", value=[[2, 3, 4, 5, 5]]), "overlap"),
    (place("parts", value=[[0, 2, 3, 4, 5]]), "exactly once"),
    (place("parts", value=[7]), "list"),
    (place("parts", value=[["2"]]), "place"),
    (place("facts", value={"Bad Name": []}), "fact"),
    (place("facts", value={"versions": [1]}), "printable"),
    (place("facts", value=[]), "object"),
    (place("since", value="yesterday"), "hex digits"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused(
    change: Callable[[Document], None], why: str
) -> None:
    changed = document()
    change(changed)
    try:
        data = canonical_json(changed)
    except UnicodeEncodeError:  # half a surrogate pair, as another writer would escape it
        data = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(SourceError, match=why) as caught:
        parse_bundle(data)
    assert caught.value.code == "malformed"


def test_a_blob_listed_twice() -> None:
    changed = document()
    changed["blobs"].append(changed["blobs"][-1])
    assert "listed twice" in refused(changed)


def test_an_item_listed_twice() -> None:
    changed = document()
    changed["items"].append(changed["items"][-1])
    assert "listed twice" in refused(changed)


def test_documents_have_one_order() -> None:
    changed = document()
    changed["blobs"][0], changed["blobs"][1] = changed["blobs"][1], changed["blobs"][0]
    for item in changed["items"]:
        item["blobs"] = [{0: 1, 1: 0}.get(n, n) for n in item["blobs"]]
    assert "order" in refused(changed)


@pytest.mark.parametrize("name", ["../lock", "a/b", "a\\b", ".hidden", ".."])
def test_a_document_has_a_plain_file_name(name: str) -> None:
    changed = document()
    changed["items"][0]["kind"] = "document"
    changed["items"][0]["name"] = "site.lock"
    parse_bundle(canonical_json(changed))
    changed["items"][0]["name"] = name
    assert "plain file name" in refused(changed)


def piece(offset: int, size: int) -> Document:
    return {"blob": 2, "offset": offset, "size": size, "digest": str(OTHER)}


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, 300), piece(301, 399)],
        [piece(0, 300), piece(299, 401)],
        [piece(0, 300), piece(300, 401)],
        [piece(0, 300)],
        [piece(300, 400), piece(0, 300)],
        [piece(0, 700)],
        [piece(0, 0), piece(0, 300), piece(300, 400)],
        [piece(0, 300), piece(300, 400), 2],
        [2, piece(0, 300), piece(300, 400)],
    ],
)
def test_segments_cover_a_blob_once_without_gap(pieces: Document) -> None:
    changed = document()
    changed["parts"] = [[piece(0, 300), piece(300, 400), 3, 4, 5]]
    parse_bundle(canonical_json(changed))
    changed["parts"] = [[*pieces, 3, 4, 5]]
    assert "overlap" in (said := refused(changed)) or "exactly once" in said


def rebuilt(**values: Any) -> Document:
    """The last blob is made from the one before it, which it needs for that."""
    changed = document()
    told = {"base": str(OTHER), "payload": changed["blobs"][4]["digest"], "method": "chunks"}
    changed["blobs"][5] |= {"carried": False, "rebuild": told | values}
    changed["parts"] = [[2, 3, 4]]
    return changed


def test_what_a_blob_is_rebuilt_with_is_carried() -> None:
    good = parse_bundle(canonical_json(rebuilt()))
    assert good.blobs[5].rebuild is not None
    assert "not carried" in refused(rebuilt(payload=str(OTHER)))
    assert "not carried" in refused(rebuilt(payload=document()["blobs"][0]["digest"]))
    assert "itself" in refused(rebuilt(base=document()["blobs"][5]["digest"]))
    both = rebuilt()
    del both["blobs"][5]["carried"]
    both["parts"] = [[2, 3, 4, 5]]
    assert "both carried" in refused(both)


def test_sizes_and_counts_have_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", len(SAMPLE.manifest) - 1)
    with pytest.raises(SourceError, match="larger than"):
        parse_bundle(SAMPLE.manifest)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_BLOBS", 5)
    with pytest.raises(SourceError, match="at most 5"):
        parse_bundle(SAMPLE.manifest)
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_ITEMS", 1)
    with pytest.raises(SourceError, match="at most 1"):
        parse_bundle(SAMPLE.manifest)


def test_a_manifest_of_countless_values_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(module, "load_json_object", never)
    with pytest.raises(SourceError, match="far more than"):
        parse_bundle(b'{"blobs":[' + b"0," * 7_000_000 + b"0]}")


def test_the_sizes_together_have_a_ceiling() -> None:
    changed = document()
    for number in (2, 3, 4, 5):
        changed["blobs"][number]["size"] = 1 << 49
    assert "medium" in refused(changed)


@pytest.mark.parametrize("key", ["mediaType", "artifactType"])
@pytest.mark.parametrize("text", ["a b", "a\x1b[31m", "a\u202e", "\u00e9", "x" * 256])
def test_a_media_type_is_printable(key: str, text: str) -> None:
    changed = document()
    changed["items"][0]["descriptor"][key] = text
    assert "printable ASCII" in refused(changed)


def test_the_documents_together_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(blob.size_bytes for blob in SAMPLE.bundle.blobs if blob.document)
    monkeypatch.setattr(consistency, "MAX_DOCUMENTS_BYTES", total)
    parse_bundle(SAMPLE.manifest)
    monkeypatch.setattr(consistency, "MAX_DOCUMENTS_BYTES", total - 1)
    with pytest.raises(SourceError, match="larger together"):
        parse_bundle(SAMPLE.manifest)


def test_what_is_read_of_a_manifest_is_bounded() -> None:
    assert consistency.MAX_DOCUMENTS_BYTES <= 1 << 30
    assert MAX_MANIFEST_BYTES <= 32 << 20 and MAX_ITEMS <= 20_000 and MAX_BLOBS <= 200_000


LABEL = PartLabel(OTHER, 2, 3)


def test_a_label_reads_as_it_was_written() -> None:
    assert parse_label(render_label(LABEL)) == LABEL


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"number":2', b'"number":4', "number"),
        (b'"number":2', b'"number":0', "number"),
        (b'"count":3', b'"count":0', "count"),
        (b'"count":3', b'"count":99999', "count"),
        (b'"format":1', b'"format":2', "format"),
        (b'"format":1', b'"format":1,"x":1', "not a field"),
        (b'{"count"', b'{ "count"', "spelt"),
        (b"bundle-part", b"bundle-port", "mediaType"),
        (b"sha256:", b"sha512:", "hex digits"),
        (b"}", b'","y":"' + b"x" * 5000 + b'"}', "larger"),
    ],
)
def test_a_label_is_read_strictly(old: bytes, new: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        parse_label(render_label(LABEL).replace(old, new))


def test_equal_bundles_have_equal_bytes_whatever_order_their_facts_have() -> None:
    one = replace(SAMPLE.bundle, facts={"b": ("1",), "a": ("2",)})
    other = replace(SAMPLE.bundle, facts={"a": ("2",), "b": ("1",)})
    assert render_bundle(one) == render_bundle(other)
    assert isinstance(parse_bundle(render_bundle(one)), Bundle)
