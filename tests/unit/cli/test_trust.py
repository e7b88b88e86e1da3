"""``trust show`` says what is leaned on; ``trust refresh`` brings it up to date and not back."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_imager.cli.main import run
from local_imager.errors import SettingsError
from local_imager.sources import refresh, rootfile
from local_imager.sources.rootfile import (
    default_root_file,
    keep_root,
    kept_root_file,
    packaged_file,
    trust_dir,
)
from local_imager.sources.trusted_root import load_trusted_root
from tests.unit.sources.test_sigfix import SIGFIX
from tests.unit.sources.tufrepository import TufRepository

PRIVATE = SIGFIX / "trust" / "trusted_root.json"
PUBLIC = SIGFIX / "trust" / "public-good.trusted_root.json"


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    made = TufRepository(tmp_path / "tuf")
    made.publish(PUBLIC.read_bytes())
    return made


@pytest.fixture
def address(repository: TufRepository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The repository stands in for the public one, whose packaged root begins the chain."""
    with repository.served() as url:
        monkeypatch.setattr(refresh, "PUBLIC_URL", url)

        def packaged(name: str) -> Path | None:
            return repository.bootstrap if name == "root.json" else packaged_file(name)

        monkeypatch.setattr(refresh, "packaged_file", packaged)
        yield url


def test_the_packaged_root_is_shown_without_a_socket(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    code, document = asked(["trust", "show"], capsys)
    assert code == 0
    root = document["trusted_root"]
    assert root["origin"] == "sigstore package"
    assert root["digest"].startswith("sha256:")
    assert root["age_days"] > 0
    kinds = {one["kind"] for one in root["authorities"]}
    assert kinds == {
        "certificate authority",
        "certificate transparency log",
        "transparency log",
        "timestamp authority",
    }
    assert {one["state"] for one in root["authorities"]} == {"valid", "expired"}
    assert any("later than 2022-12-31" in sentence for sentence in root["cannot_prove"])
    assert [rule["pattern"] for rule in document["rules"]] == ["ghcr.io/siderolabs/**"]
    assert run(["trust", "show"]) == 0
    text = capsys.readouterr().out
    assert root["digest"] in text and "cannot prove:" in text and "ghcr.io/siderolabs/**" in text


def test_rules_and_their_own_roots_are_shown_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = SIGFIX / "keys" / "p256.pub"
    without = SIGFIX / "trust" / "trusted_root.without-ca.json"
    without = without if without.exists() else PRIVATE
    (tmp_path / "mine.toml").write_text(
        f"""
[[trust]]
pattern = "**"
issuer = "https://i"
identity_regexp = "open"
trusted_root = "{without}"
[[trust]]
pattern = "registry.test/team/app"
key = "{key}"
threshold = 1
rollback = "refuse"
"""
    )
    (tmp_path / "local-imager.toml").write_text(f'[[trust]]\npattern = "**"\nkey = "{key}"\n')
    code, document = asked(["--policy", "mine.toml", "trust", "show"], capsys)
    assert code == 0
    patterns = [rule["pattern"] for rule in document["rules"]]
    assert patterns == ["registry.test/team/app", "ghcr.io/siderolabs/**", "**"]
    assert document["rules"][0]["rollback"] == "refuse"
    assert [rule["origin"] for rule in document["tightened_by"][0]] == ["project-file"]
    (other,) = document["other_roots"]
    assert (other["origin"], other["path"]) == ("file", str(without))
    assert any("open at both ends" in warning for warning in document["warnings"])
    assert run(["--policy", "mine.toml", "trust", "show"]) == 0
    assert "no rollback" in capsys.readouterr().out


def test_a_root_without_authorities_says_what_it_cannot_prove(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(PRIVATE.read_text())
    document["timestampAuthorities"] = []
    for log in document["tlogs"]:
        log["publicKey"]["validFor"] = {
            "start": "2020-01-01T00:00:00Z",
            "end": "2021-01-01T00:00:00Z",
        }
    (tmp_path / "root.json").write_text(json.dumps(document))
    (tmp_path / "mine.toml").write_text(
        '[[trust]]\npattern = "a.test/**"\nissuer = "i"\nidentity = "me"\n'
        'trusted_root = "root.json"\n'
    )
    _, shown = asked(["--policy", "mine.toml", "trust", "show"], capsys)
    sentences = shown["other_roots"][0]["cannot_prove"]
    assert "it names no timestamp authority: what needs one is refused" in sentences
    assert any(s.startswith("no transparency log is in its time") for s in sentences)


def test_a_refresh_is_kept_and_counts(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = asked(["trust", "refresh"], capsys)
    assert code == 0
    assert document["tuf_versions"] == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    _, shown = asked(["trust", "show"], capsys)
    root = shown["trusted_root"]
    assert (root["origin"], root["source"]) == ("refreshed", address)
    assert root["digest"] == document["digest"]
    assert root["fetched_at"]
    assert load_trusted_root(None).digest == document["digest"]


def test_the_root_before_stays_at_hand(
    address: str, repository: TufRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first = asked(["trust", "refresh"], capsys)
    repository.rotate_root()
    repository.publish(PRIVATE.read_bytes())
    code, second = asked(["trust", "refresh"], capsys)
    assert (code, second["previous_digest"]) == (0, first["digest"])
    assert second["tuf_versions"]["root"] == 2
    hexes = {digest.removeprefix("sha256:") for digest in (first["digest"], second["digest"])}
    assert {path.stem for path in trust_dir().glob("*.json")} == {*hexes, "state"}
    assert run(["trust", "refresh"]) == 0
    assert "unchanged" in capsys.readouterr().out


@pytest.mark.parametrize("forgotten", [False, True], ids=["with-metadata", "metadata-lost"])
def test_an_older_repository_is_refused(
    forgotten: bool,
    address: str,
    repository: TufRepository,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.publish(PUBLIC.read_bytes())
    _, first = asked(["trust", "refresh"], capsys)
    if forgotten:
        shutil.rmtree(trust_dir() / "tuf")
    repository.publish(PRIVATE.read_bytes(), version=1)
    code, document = asked(["trust", "refresh"], capsys)
    assert (code, document["error"]["code"]) == (3, "rollback")
    assert load_trusted_root(None).digest == first["digest"]


def test_expired_and_foreign_metadata_is_refused(
    address: str, repository: TufRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.publish(PUBLIC.read_bytes(), expired=True)
    code, document = asked(["trust", "refresh"], capsys)
    assert (code, document["error"]["code"]) == (3, "refresh-refused")
    other = TufRepository(tmp_path / "other")
    other.publish(PRIVATE.read_bytes(), version=9)
    for name in ("timestamp.json", "9.snapshot.json", "9.targets.json"):
        shutil.copy(other.path / name, repository.path / name)
    code, document = asked(["trust", "refresh"], capsys)
    assert (code, document["error"]["code"]) == (3, "refresh-refused")
    assert kept_root_file(trust_dir()) is None


def test_a_target_that_is_no_trusted_root_does_not_count(
    address: str, repository: TufRepository
) -> None:
    repository.publish(b'{"mediaType": "something else"}')
    assert run(["trust", "refresh"]) == 2
    assert kept_root_file(trust_dir()) is None


def test_offline_is_told_with_a_hint_and_changes_nothing(
    repository: TufRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with repository.served() as url:
        pass
    monkeypatch.setattr(refresh, "PUBLIC_URL", url)
    monkeypatch.setattr(refresh, "packaged_file", lambda _: repository.bootstrap)
    code, document = asked(["trust", "refresh"], capsys)
    assert (code, document["error"]["code"]) == (1, "offline")
    assert "stays" in document["error"]["hint"]
    found = default_root_file()
    assert found is not None and found.kind == "sigstore package"


def test_another_instance_goes_to_a_file_and_not_to_the_default(
    repository: TufRepository, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["--root", str(repository.bootstrap)]
    with repository.served() as url:
        assert run(["trust", "refresh", "--url", url, *begin]) == 2
        assert run(["trust", "refresh", "--url", url, "--out", "their.json"]) == 2
        assert run(["trust", "refresh", "--url", url, *begin, "--out", "their.json"]) == 0
    assert Path("their.json").read_bytes() == PUBLIC.read_bytes()
    assert kept_root_file(trust_dir()) is None


def test_a_damaged_record_is_an_error_and_not_another_root(tmp_path: Path) -> None:
    folder = tmp_path / "trust"
    data = PRIVATE.read_bytes()
    kept = keep_root(folder, data, source="s", fetched_at="now", versions={"root": 2})
    assert kept_root_file(folder) == kept
    for damage in ("", "[]", '{"current": null}', '{"current": {"digest": "../../x"}}'):
        (folder / "state.json").write_text(damage)
        with pytest.raises(SettingsError):
            kept_root_file(folder)


def test_a_kept_root_that_was_changed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_root(trust_dir(), PRIVATE.read_bytes(), source="s", fetched_at="now", versions={})
    kept.path.write_bytes(PUBLIC.read_bytes())
    with pytest.raises(SettingsError) as caught:
        load_trusted_root(None)
    assert "not the one that was saved" in caught.value.message
    assert rootfile.default_root_file() == kept
