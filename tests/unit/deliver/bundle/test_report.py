"""The report as a value: its JSON, its exit code, and the page that is printed from it."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far.completing import Outcome, State
from local_imager.deliver.bundle.far.page import render_page, verdict_text
from local_imager.deliver.bundle.far.report import (
    SCHEMA,
    FileReport,
    ImportReport,
    PartReport,
    RootReport,
    keep_report,
)
from local_imager.deliver.bundle.far.reportfiles import write_report
from local_imager.deliver.bundle.form.model import Item, Kind
from local_imager.deliver.bundle.form.signing import check_signature, load_private_key
from local_imager.deliver.bundle.form.words import short_name
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.errors import ExitCode, InputError
from local_imager.oci.model import MEDIA_MANIFEST, Descriptor, Digest
from local_imager.store.fsck import check
from local_imager.store.gc import Rules, collect
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide

EVIL = '<script>alert("1")</script>&\x1b[31m\u202e'


def outcome(name: str, state: State, kind: Kind = "image", **more: object) -> Outcome:
    item = Item(kind, name, Descriptor(MEDIA_MANIFEST, Digest.of(name.encode()), 5), (), ("base",))
    return Outcome(item, 5 << 20, state, **more)  # type: ignore[arg-type]


def report(*outcomes: Outcome, **more: object) -> ImportReport:
    base = ImportReport(
        Digest.of(b"set"),
        "2026-01-02T03:04:05Z",
        False,
        {"versions": ("v1.13.0",)},
        {"signer": "key", "policy": "bundles (user-file)", "evidence": {}},
        "",
        (FileReport("site.tar", 1, 1, 1000),),
        outcomes,
        (PartReport(1, "here", ("a",)),),
        (RootReport("sha256:" + "0" * 64, "in force"),),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def size(size_bytes: int) -> str:
    return f"{size_bytes} B"


class Page(HTMLParser):
    """Collects tags, attributes and text; every element must be closed as it was opened."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self._open: list[str] = []
        self.feed(page.decode())
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("br", "meta"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_json_is_stable_and_holds_what_a_program_wants() -> None:
    one = report(
        outcome("a", "imported", signer="key", policy="rule"),
        outcome("b", "waiting", parts=(2,)),
        outcome("lock", "carried", "document"),
        written=frozenset({"lock"}),
        problems=(InputError("no", hint="yes", code="exists"),),
    )
    assert one.to_json() == one.to_json()
    document = json.loads(one.to_json())
    assert document["schema"] == SCHEMA and document["set"] == str(Digest.of(b"set"))
    assert [item["state"] for item in document["items"]] == ["imported", "waiting", "written"]
    assert document["items"][1]["waits_for"] == [2]
    assert document["counts"] == {"imported": 1, "waiting": 1} and not document["complete"]
    assert document["problems"] == [{"code": "exists", "message": "no", "hint": "yes"}]
    assert document["files"][0]["read"] == "whole"


@pytest.mark.parametrize(
    ("states", "faults", "code"),
    [
        (("imported", "present"), 0, ExitCode.OK),
        (("imported", "waiting"), 0, ExitCode.OK),
        (("ready",), 0, ExitCode.OK),
        (("imported", "refused"), 0, ExitCode.VERIFICATION_REFUSED),
        (("faulty",), 0, ExitCode.VERIFICATION_REFUSED),
        (("imported",), 1, ExitCode.VERIFICATION_REFUSED),
        (("kept-back",), 1, ExitCode.VERIFICATION_REFUSED),
        (("lacking", "imported"), 0, ExitCode.FAILED),
    ],
)
def test_the_exit_code(states: tuple[State, ...], faults: int, code: ExitCode) -> None:
    found = (Fault("extra", "x", "an extra file"),) * faults
    files = (FileReport("site.tar", 1, 1, 9, faults=found),)
    outcomes = [outcome(f"i{number}", state) for number, state in enumerate(states)]
    assert report(*outcomes, files=files).exit_code == code


def test_a_problem_beside_the_import_has_its_own_exit_code() -> None:
    problems = (InputError("there is another file"),)
    assert report(outcome("a", "imported"), problems=problems).exit_code == ExitCode.INPUT_INVALID


def test_the_page_says_all_and_loads_nothing() -> None:
    asset = f"local-imager/asset/{'5' * 64}/v1.13.0/metal-amd64.iso"
    fault = Fault("bit-flip", "blobs/x", "its bytes are wrong", ("c",))
    one = report(
        outcome("a", "imported", signer="key sha256:0f", policy="rule (user-file)"),
        outcome("b", "refused", code="no-policy", message="nobody covers it", hint="add a rule"),
        outcome("c", "faulty"),
        outcome("d", "waiting", parts=(2, 3)),
        outcome("e", "present", unverified=True),
        outcome(asset, "imported", "asset"),
        outcome("lock", "carried", "document"),
        files=(FileReport("one.tar", 1, 3, 9, faults=(fault,), more_faults=4), FileReport("?")),
        parts=tuple(PartReport(n, "missing" if n > 1 else "here", ("d",)) for n in (1, 2, 3)),
    )
    page = Page(render_page(one, size))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onload"} & {name for name, _ in page.attributes}
    for text in (
        Digest.of(b"set").hex,
        Digest.of(one.to_json()).hex,
        "555555555555/v1.13.0/metal-amd64.iso",
        "no-policy: nobody covers it",
        "add a rule",
        "waits for parts 2, 3",
        "NOT VERIFIED",
        "bit-flip",
        "Touches c",
        "and 4 more faults",
        "signed by key sha256:0f, rule rule (user-file)",
        "To come: parts 2, 3 of 3",
    ):
        assert text in page.said, text
    style = render_page(one, size).decode()
    assert "@page { size: A4;" in style and "default-src 'none'" in style
    assert not re.search(r"url\(|@import", style)


def test_every_text_from_outside_is_escaped() -> None:
    fault = Fault("extra", EVIL, EVIL, (EVIL,))
    one = report(
        outcome(
            EVIL,
            "refused",
            code=EVIL,
            message=EVIL,
            hint=EVIL,
            signer=EVIL,
            policy=EVIL,
            tried=(EVIL,),
        ),
        facts={EVIL: (EVIL,)},
        signed_by={"signer": EVIL, "policy": EVIL},
        files=(FileReport(EVIL, 1, 1, faults=(fault,)),),
        parts=(PartReport(1, "missing", (EVIL,)), PartReport(2, "here", (EVIL,))),
        problems=(InputError(EVIL, hint=EVIL),),
        time=EVIL,
    )
    for shown in (one, replace(one, signed_by=None, unvouched=EVIL)):
        data = render_page(shown, size)
        assert "script" not in Page(data).tags
        assert b"\x1b" not in data and "\u202e".encode() not in data


def test_the_verdict() -> None:
    done = verdict_text(report(outcome("a", "imported"), outcome("b", "present")))
    assert done == "Images and assets: 1 imported, 1 already there."
    assert verdict_text(report()) == "Images and assets: none."
    assert "nothing was written" in verdict_text(report(outcome("a", "ready"), dry_run=True))
    assert short_name("registry.example/a:v1") == "registry.example/a:v1"


def test_reports_are_written_beside_each_other_and_signed(tmp_path: Path) -> None:
    near = NearSide(tmp_path)
    near.signature(b"")  # makes the key
    key = load_private_key(tmp_path / "vouching.key")
    one = report(outcome("a", "imported"))
    first, second = (write_report(one, tmp_path / "r", size, key) for _ in range(2))
    assert first.json != second.json and len(list((tmp_path / "r").iterdir())) == 6
    data = first.json.read_bytes()
    assert data == one.to_json() and Digest.of(data) == first.digest
    assert first.digest.hex in first.page.read_text()
    assert first.signature is not None
    vouched = check_signature(data, first.signature.read_bytes(), near.policy())
    assert vouched is not None
    assert write_report(one, tmp_path / "s", size).signature is None


def test_the_store_keeps_the_newest_report_of_each_set(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    for time in ("1", "2"):
        keep_report(store.layout, report(outcome("a", "imported"), time=time))
    keep_report(store.layout, report(set_digest=Digest.of(b"other")))
    collect(store, Rules(grace_s=-1))
    assert check(store).clean and store.images() == () and store.assets() == ()
    names = sorted(entry.ref_name for entry in store.layout.entries())
    assert len(names) == 2
    entry = store.layout.resolve(f"local-imager/import/{Digest.of(b'set').hex}")
    assert entry is not None
    manifest = store.layout.read_manifest(entry)
    layer = manifest.layers[0]  # type: ignore[union-attr]
    kept = json.loads(store.layout.read_blob(layer.digest, max_bytes=1 << 20))
    assert kept["time"] == "2"


def test_a_kill_leaves_no_empty_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("local_imager.deliver.bundle.far.reportfiles.replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            write_report(report(outcome("a", "imported")), tmp_path, size)
    assert os.listdir(tmp_path) == []


def test_reports_of_one_second_on_a_disk_that_knows_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    written = [write_report(report(outcome("a", "imported")), tmp_path, size) for _ in range(3)]
    assert len({files.json for files in written}) == 3
    assert len(os.listdir(tmp_path)) == 6
    assert {Digest.of(files.json.read_bytes()) for files in written} == {written[0].digest}
