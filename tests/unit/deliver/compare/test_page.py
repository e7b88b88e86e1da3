"""The page: whole, without scripts, nothing from either side becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from local_imager.deliver.compare.page import render_page, render_summary
from local_imager.deliver.compare.verdict import Comparison, Verdict
from local_imager.deliver.compare.walk import Subject, compare_trees
from tests.comparetrees import ID_B, Image, box, leaf

EVIL = "\"><script>alert(1)</script><img src=x onerror='x'>\x1b[31m</style>"
VOID = {"meta", "br", "wbr", "img", "input", "link", "hr"}


class Reader(HTMLParser):
    """Checks that tags nest, and keeps their names, attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text of the page, its white space as one blank."""
        return " ".join(" ".join(self.texts).split())


def read(comparison: Comparison) -> Reader:
    return Reader(render_page(comparison).decode())


CHANGED = compare_trees(
    Image().subject, Image("console=ttyS0", "v1.1.0", ID_B, "world", run=2).subject
)


def test_the_page_says_verdict_differences_noise_and_both_sides() -> None:
    text = read(CHANGED).text
    assert "different: 3 differences" in text
    for said in ("kernel argument console", "console=ttyS0", "META key 0xa", "extension tool"):
        assert said in text
    assert "cpio-times" in text
    assert "nothing reads it at boot" in text
    assert "Schematic ID" in text
    assert "v1.13.0" in text


@pytest.mark.parametrize("run", [1, 2])
def test_every_verdict_has_its_words(run: int) -> None:
    same = compare_trees(Image().subject, Image(run=run).subject)
    word = {1: "identical bytes", 2: "same but for named noise"}[run]
    assert word in read(same).text
    tree = Image().tree
    packed = box("x", "compressed", replace(tree, name="content"), packing="zstd")
    packing = compare_trees(Subject("a", tree, {}), Subject("b", packed, {}))
    assert packing.verdict is Verdict.SAME_CONTENT
    assert "same content, packed differently" in read(packing).text


def evil_side(text: str) -> Subject:
    evil: Any = EVIL + text
    meaning = Image().meaning | {
        "kind": evil,
        "talos_version": evil,
        "schematic_id": evil,
        "extensions": [{"name": EVIL, "version": evil, "author": evil, "image": evil}],
        "boot_entries": [{"title": evil, "path": evil, "kernel_arguments": [evil]}],
        "meta": {EVIL: evil},
        "secure_boot": {"state": evil, "signers": [evil]},
        "imager": {EVIL: evil},
        "unknown": [{"what": evil, "why": evil}],
    }
    inner = [
        leaf(EVIL, f"{EVIL}\n{text}", label=evil),
        leaf(f"alone {text} {EVIL}", text),
        box("segment 2", "cpio", leaf(EVIL, "1", mtime=len(text))),
    ]
    return Subject(evil, box(EVIL, "tar", *inner, rest=evil), meaning)


def test_nothing_from_a_file_becomes_markup() -> None:
    result = compare_trees(evil_side("1"), evil_side("22"))
    page = render_page(result).decode()
    reader = Reader(page)
    assert not reader.tags & {"script", "img", "link", "iframe", "object", "a"}
    assert not any(
        name.startswith("on") or name in ("src", "href") for name, _ in reader.attributes
    )
    assert page.count("<style>") == page.count("</style>") == 1
    assert "\x1b" not in page
    assert "<script>alert(1)</script>" in reader.text
    summary = Reader(render_summary(EVIL, [(EVIL, result), (EVIL, EVIL)]).decode())
    assert not summary.tags & {"script", "img"}
    assert {value for name, value in summary.attributes if name == "href"} == {"#r1", "#r2"}


def test_the_page_loads_nothing_and_forbids_to() -> None:
    page = render_page(CHANGED).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r"https?://|@import|url\(", page)
    for words in ("prefers-color-scheme: dark", "@media print", "details"):
        assert words in page


def test_a_summary_has_a_row_and_a_section_for_each() -> None:
    same = compare_trees(Image().subject, Image().subject)
    rows: list[tuple[str, Comparison | str]] = [
        ("a.iso", CHANGED),
        ("b.iso", same),
        ("c.iso", "it is not there"),
    ]
    reader = Reader(render_summary("A set", rows).decode())
    for said in ("A set", "a.iso", "identical bytes", "not compared: it is not there"):
        assert said in reader.text
    marks = {value for name, value in reader.attributes if name == "id"}
    assert {"r1", "r2", "r3", "c1d1"} <= marks
