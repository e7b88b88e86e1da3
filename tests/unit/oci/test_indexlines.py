"""The index as lines: what is searched and spliced as bytes equals what a parse would give."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import SourceError
from local_imager.oci import indexlines
from local_imager.oci.indexlines import ANNOTATION_LINES, EntryChange, IndexLines
from local_imager.oci.layout import Layout, ref_name_of
from local_imager.oci.model import ANNOTATION_REF_NAME, Digest

Entry = dict[str, Any]


def entry(name: str, number: int = 0, **more: object) -> Entry:
    digest = str(Digest.of(f"{name} {number}".encode()))
    said = {ANNOTATION_REF_NAME: name} if name else {}
    return {"mediaType": "x", "digest": digest, "size": number, "annotations": said, **more}


def document(*entries: Entry, **more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, **more, "manifests": list(entries)}


NAMES = ["plain:1", 'quote"d', "back\\slash", "ümläut", "a,\nb", "{x}", "},y", "", "plain:12"]


@pytest.fixture(params=[0, 1 << 20], ids=["marked", "unmarked"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(indexlines, "MARKED_FROM_BYTES", request.param)
    return int(request.param)


def reread(lines: IndexLines) -> IndexLines:
    """Write, see that it is plain JSON, and read again."""
    json.loads(lines.data)
    return IndexLines.read(lines.data, "index")


@pytest.mark.usefixtures("limit")
def test_what_is_written_is_read_again() -> None:
    whole = document(*(entry(name, n) for n, name in enumerate(NAMES)), annotations={"a": "b"})
    for one in (whole, document(), document(entry("x"), subject=None)):
        again = reread(IndexLines.of(one))
        assert again.document() == one
        assert [e.ref_name for e in again.entries()] == [ref_name_of(e) for e in one["manifests"]]


def test_only_a_large_index_says_how_long_its_lines_are() -> None:
    assert ANNOTATION_LINES.encode() not in IndexLines.of(document(entry("a"))).data
    large = IndexLines.of(document(*(entry(f"n{n}", n) for n in range(1000))))
    length = len(large.data) - large.data.index(b"\n") - 1 - len("\n]}\n")
    said = json.loads(large.data)["annotations"]
    assert said == {ANNOTATION_LINES: str(length)}
    assert reread(large).head == {"schemaVersion": 2}


@pytest.mark.usefixtures("limit")
def test_an_entry_is_found_by_any_text_in_it() -> None:
    lines = reread(IndexLines.of(document(*(entry(name, n) for n, name in enumerate(NAMES)))))
    for name in filter(None, NAMES):
        found = [e.ref_name for e in lines.holding(name)]
        assert found == [other for other in NAMES if name in other]
    assert lines.holding("nothing") == lines.holding() == ()
    assert lines.holding("") == lines.entries()
    assert IndexLines.of(document()).holding("") == ()
    assert lines.holding("\ud800") == ()
    begun = lines.beginning((ANNOTATION_REF_NAME, "plain:"), ("digest", "nothing"))
    assert [e.ref_name for e in begun] == ["plain:1", "plain:12"]
    assert lines.beginning(("ref.name", 'quote"')) == lines.holding('quote"')
    both = lines.holding(NAMES[3], str(lines.entries()[1].digest))
    assert [e.ref_name for e in both] == [NAMES[1], NAMES[3]]
    assert lines.contains(b'"size": 1,') and not lines.contains(b'"size":1,')
    unnamed = lines.lacking(re.compile(rb'ref\.name": "[^"]'))
    assert [e.ref_name for e in unnamed] == [""]


@pytest.mark.usefixtures("limit")
def test_splices_equal_edits_of_the_document() -> None:
    """Random changes: some entries go, some are changed, some come; the others stay as they are."""
    chance = random.Random(3)
    lines, whole = IndexLines.of(document()), document()
    for step in range(300):
        name = chance.choice([n for n in NAMES if n])
        gone, new = chance.random() < 0.6, chance.choice([0, 1, 2])

        def edit(
            entries: list[Entry], name: str = name, gone: bool = gone, new: int = new, s: int = step
        ) -> list[Entry]:
            kept = [e for e in entries if not (gone and ref_name_of(e) == name)]
            return [*kept, *(entry(name, 10 * s + n) for n in range(new))]

        lines = reread(lines.edited(EntryChange((name,), edit)))
        whole["manifests"] = edit(whole["manifests"])
        assert lines.document() == whole
    assert len(whole["manifests"]) > 5


def test_a_change_of_the_whole_document(limit: int) -> None:
    lines = IndexLines.of(document(entry("a")))
    after = reread(lines.edited(lambda whole: whole.update(annotations={"k": "v"}, manifests=[])))
    assert after.document() == document(annotations={"k": "v"})
    assert lines.document() == document(entry("a"))
    assert limit in (0, 1 << 20)


OWN = IndexLines.of(document(*(entry(f"name:{n}", n) for n in range(1000)))).data


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(json.loads(OWN)).encode(),
        json.dumps(json.loads(OWN), indent=1).encode(),
        json.dumps(json.loads(OWN), separators=(",", ":")).encode(),
        OWN.replace(b'": "name:7"', b'":  "name:7"'),
        OWN.replace(b"\n]}\n", b"\n] }\n"),
        OWN[:-1],
        OWN.replace(b"name:", b"\\u006eame:"),
    ],
    ids=["one line", "indented", "compact", "edited", "other end", "cut", "escaped"],
)
def test_another_writers_form_is_parsed_and_understood(written: bytes) -> None:
    lines = IndexLines.read(written, "index")
    assert next(e.ref_name for e in lines.holding("name:7")) == "name:7"
    assert len(lines.entries()) == 1000
    assert lines.data == OWN


def test_lines_written_here_and_damaged_are_told_when_looked_at() -> None:
    place = OWN.index(b"name:500")
    damaged = OWN[:place] + b'"' + OWN[place + 1 :]
    lines = IndexLines.read(damaged, "index")
    assert lines.holding("name:501")
    for look in (lines.entries, lines.document, lambda: lines.holding("ame:500")):
        with pytest.raises(SourceError) as caught:
            look()
        assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    "entries", ["[]", '[{"digest":"sha256:%s","size":1,"x":"\\ud800"}]' % ("0" * 64)]
)
def test_half_a_surrogate_pair_is_refused(entries: str) -> None:
    """It could not be written again."""
    data = '{{"manifests":{},"y":"{}"}}'.format(entries, "\\ud800" if entries == "[]" else "")
    with pytest.raises(SourceError):
        IndexLines.read(data.encode(), "index")


@pytest.mark.usefixtures("limit")
def test_a_layout_sees_each_change_of_other_processes(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    other = Layout.open(layout.path)
    blob = layout.put_bytes(b"x", "text/plain")
    layout.set_ref("mine", blob)
    other.set_ref("theirs", blob)
    assert layout.resolve("theirs") is not None and other.resolve("mine") is not None
    layout.remove_ref("theirs")
    assert other.resolve("theirs") is None
    layout.update_index(lambda whole: whole["manifests"].clear())
    assert other.resolve("mine") is None and Layout.open(layout.path).entries() == ()
