"""Documents as files, and the trusted root of a bundle: only when asked, only when vouched for."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from local_imager.deliver.bundle.far.handout import refuse_rollback
from local_imager.deliver.bundle.far.importing import Handout, import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.deliver.bundle.far.report import ImportReport
from local_imager.errors import ExitCode, VerificationRefused
from local_imager.events import NULL_SINK
from local_imager.sources.rootfile import default_root_file, kept_root_file, trust_dir
from local_imager.sources.trusted_root import load_root_file, parse_trusted_root
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide


@pytest.fixture
def near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NearSide:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    near = NearSide(tmp_path)
    near.image("siderolabs/imager", size_bytes=1000)
    return near


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "far")


def take(near: NearSide, store: Store, **more: object) -> ImportReport:
    files = [str(path) for path in near.write()]
    handout = Handout(**more)  # type: ignore[arg-type]
    wishes = Wishes(near.policy(), documents=handout.documents is not None)
    return import_files(files, store, wishes, NULL_SINK, handout=handout).reports[0]


def test_documents_are_written_and_never_over_another_file(
    near: NearSide, store: Store, tmp_path: Path
) -> None:
    near.document("site.lock", b"lock")
    near.document("policy.toml", b"policy", "policy")
    place = tmp_path / "papers"
    assert take(near, store, documents=place).written == {"site.lock", "policy.toml"}
    assert (place / "site.lock").read_bytes() == b"lock"
    again = take(near, store, documents=place)  # the same bytes are no conflict
    assert again.problems == () and again.exit_code == ExitCode.OK
    (place / "site.lock").write_bytes(b"mine")
    report = take(near, store, documents=place)
    assert report.problems[0].code == "exists" and report.exit_code == ExitCode.INPUT_INVALID
    assert "DIR/site.lock is there" in report.problems[0].message
    assert str(tmp_path) not in report.to_json().decode()
    assert (place / "site.lock").read_bytes() == b"mine" and report.written == frozenset()
    assert take(near, store, documents=place, force=True).problems == ()
    assert (place / "site.lock").read_bytes() == b"lock"


def test_what_is_private_in_the_store_is_so_as_a_file(
    near: NearSide, store: Store, tmp_path: Path
) -> None:
    near.document("site.yaml", b"secret")
    near.document("site.lock", b"lock")
    store.layout.put_bytes(b"secret", "text/plain", private=True)
    take(near, store, documents=tmp_path / "papers")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "papers").iterdir()}
    assert modes == {"site.yaml": 0o600, "site.lock": 0o644}


def test_a_link_is_not_written_through(near: NearSide, store: Store, tmp_path: Path) -> None:
    near.document("site.lock", b"lock")
    place, target = tmp_path / "papers", tmp_path / "precious"
    place.mkdir()
    target.write_bytes(b"lock")
    (place / "site.lock").symlink_to(target)
    assert take(near, store, documents=place).problems[0].code == "exists"
    take(near, store, documents=place, force=True)
    assert target.read_bytes() == b"lock" and not (place / "site.lock").is_symlink()


@pytest.mark.parametrize("name", ["a b", "-rf", "über", "con:aux", "x" * 200])
def test_names_that_are_not_written(
    near: NearSide, store: Store, tmp_path: Path, name: str
) -> None:
    near.document(name, b"data")
    report = take(near, store, documents=tmp_path / "papers")
    assert report.problems[0].code == "document-name"
    assert not (tmp_path / "papers").exists()


def test_secret_documents_are_for_their_owner_only(
    near: NearSide, store: Store, tmp_path: Path
) -> None:
    near.document("secret.yaml", b"token", "schematic", private=True)
    near.document("open.yaml", b"open", "schematic")
    place = tmp_path / "papers"
    place.mkdir()
    (place / "secret.yaml").write_bytes(b"token")  # readable by all, from before
    take(near, store, documents=place)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes["secret.yaml"] == 0o600 and modes["open.yaml"] & 0o044


def root_bytes() -> bytes:
    found = default_root_file()
    assert found is not None
    return found.path.read_bytes()


def test_a_root_is_kept_only_when_asked(near: NearSide, store: Store) -> None:
    document = json.loads(root_bytes())
    data = json.dumps(document, indent=3).encode()
    near.document("trusted-root.json", data, "trusted-root")
    report = take(near, store)
    assert kept_root_file(trust_dir()) is None
    assert [root.where for root in report.roots] == ["in force", "carried"]
    report = take(near, store, keep_root=True)
    kept = kept_root_file(trust_dir())
    assert kept is not None and kept.path.read_bytes() == data
    assert report.roots[1].kept and report.set_digest.short in kept.source
    assert take(near, store, keep_root=True).problems == ()


def test_an_older_root_is_refused_and_the_images_come_all_the_same(
    near: NearSide, store: Store
) -> None:
    document = json.loads(root_bytes())
    document["tlogs"] = document["tlogs"][:1]
    document["tlogs"][0]["logId"] = {"keyId": "AAAA"}
    near.document("trusted-root.json", json.dumps(document).encode(), "trusted-root")
    report = take(near, store, keep_root=True)
    assert kept_root_file(trust_dir()) is None
    assert report.problems[0].code == "rollback"
    assert report.exit_code == ExitCode.VERIFICATION_REFUSED
    assert report.counts == {"imported": 1}


def test_a_root_needs_a_rule_that_vouches(near: NearSide, store: Store) -> None:
    near.document("trusted-root.json", root_bytes(), "trusted-root")
    files = [str(path) for path in near.write(signed=False)]
    wishes = Wishes(near.policy(bundles=False), unsigned_assets=True)
    handout = Handout(keep_root=True)
    report = import_files(files, store, wishes, NULL_SINK, handout=handout).reports[0]
    assert report.problems[0].code == "unvouched" and kept_root_file(trust_dir()) is None


def test_a_root_that_nobody_vouches_for_is_no_problem(near: NearSide, store: Store) -> None:
    near.document("trusted-root.json", root_bytes(), "trusted-root")
    files = [str(path) for path in near.write(signed=False)]
    wishes = Wishes(near.policy(bundles=False))
    report = import_files(files, store, wishes, NULL_SINK).reports[0]
    assert report.problems == () and report.exit_code == ExitCode.OK
    assert [root.where for root in report.roots] == ["in force"]


def test_a_bundle_without_a_root(near: NearSide, store: Store) -> None:
    assert take(near, store, keep_root=True).problems[0].code == "no-root"


def test_a_root_that_takes_an_end_back_is_older() -> None:
    document = json.loads(root_bytes())
    period = document["tlogs"][0]["publicKey"]["validFor"]
    ended = {**period, "end": "2030-01-01T00:00:00Z"}
    document["tlogs"][0]["publicKey"]["validFor"] = ended
    now = parse_trusted_root(json.dumps(document).encode(), "now")
    found = default_root_file()
    assert found is not None
    before = load_root_file(found)
    refuse_rollback(before, now)  # an end was added
    with pytest.raises(VerificationRefused, match="beyond"):
        refuse_rollback(now, before)
    ended["end"] = "2029-01-01T00:00:00Z"
    refuse_rollback(now, parse_trusted_root(json.dumps(document).encode(), "sooner"))
