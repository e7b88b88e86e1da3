"""Trust policies: patterns, which rule counts, what an entry may say, and that layers tighten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import SettingsError, VerificationRefused
from local_imager.settings import TrustEntries
from local_imager.sources.patterns import NamePattern
from local_imager.sources.trust import (
    OFFICIAL_ISSUER,
    AcceptUnverified,
    KeylessSigner,
    KeySigner,
    Origin,
    TrustPolicy,
    default_policy,
    override,
    tighten,
)
from local_imager.sources.trust_entries import policy_from_entries, policy_from_settings
from tests.unit.sources.forge import Signing

KEY = Signing().pem
OTHER = Signing().pem


def entry(pattern: str, **more: Any) -> dict[str, Any]:
    return {"pattern": pattern, **(more or {"key": KEY})}


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("ghcr.io/siderolabs/**", "ghcr.io/siderolabs/imager", True),
        ("ghcr.io/siderolabs/**", "ghcr.io/siderolabs/a/b", True),
        ("ghcr.io/siderolabs/**", "ghcr.io/siderolabs", False),
        ("ghcr.io/siderolabs/**", "ghcr.io/siderolabs-evil/imager", False),
        ("ghcr.io/siderolabs/*", "ghcr.io/siderolabs/imager", True),
        ("ghcr.io/siderolabs/*", "ghcr.io/siderolabs/a/b", False),
        ("ghcr.io/*/imager", "ghcr.io/siderolabs/imager", True),
        ("ghcr.io/sidero*/imager", "ghcr.io/siderolabs/imager", True),
        ("**", "ghcr.io/siderolabs/imager", True),
        ("ghcr.io/siderolabs/**", "GHCR.IO/siderolabs/imager", True),
        ("GHCR.io/siderolabs/**", "ghcr.io/siderolabs/imager", True),
        ("ghcr.io/siderolabs/**", "ghcrxio/siderolabs/imager", False),
        ("127.0.0.1:5000/**", "127.0.0.1:5000/x/y", True),
        ("ghcr.io/siderolabs/**", "evil.test/ghcr.io/siderolabs/imager", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, name: str, covered: bool) -> None:
    assert NamePattern.parse(pattern).matches(name) is covered


@pytest.mark.parametrize(
    "pattern",
    ["", "ghcr.io//x", "/x", "a**b/c", "ghcr.io/x y", "ghcr.io/x?", "*/*/*/*/*/*/*/*/*", "x" * 600],
)
def test_a_pattern_that_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError):
        NamePattern.parse(pattern)


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ("ghcr.io/siderolabs/imager", "ghcr.io/siderolabs/*"),
        ("ghcr.io/siderolabs/i*", "ghcr.io/siderolabs/*"),
        ("ghcr.io/siderolabs/*", "ghcr.io/**"),
        ("ghcr.io/**", "**"),
        ("ghcr.io/*/imager", "ghcr.io/**"),
    ],
)
def test_the_more_specific_pattern_wins_in_any_order(stronger: str, weaker: str) -> None:
    for order in ([stronger, weaker], [weaker, stronger]):
        policy = policy_from_entries([entry(pattern) for pattern in order])
        (group,) = policy.groups_for("ghcr.io/siderolabs/imager")
        assert [rule.pattern.text for rule in group] == [stronger]


def test_rules_of_one_pattern_stand_side_by_side() -> None:
    policy = policy_from_entries([entry("a.b/**"), entry("a.b/**", key=OTHER)])
    (group,) = policy.groups_for("a.b/c")
    assert len(group) == 2


def test_nothing_matches_so_it_is_refused() -> None:
    with pytest.raises(VerificationRefused) as caught:
        default_policy().groups_for("docker.io/library/alpine")
    assert caught.value.code == "no-policy"
    assert "docker.io/library/alpine" in caught.value.message


def test_the_shipped_policy_is_the_official_one() -> None:
    (group,) = default_policy().groups_for("ghcr.io/siderolabs/imager")
    signer = group[0].signer
    assert isinstance(signer, KeylessSigner)
    assert signer.issuer == OFFICIAL_ISSUER
    assert signer.require_tlog
    assert signer.require_sct


def test_an_own_rule_replaces_an_equal_pattern_and_keeps_the_rest() -> None:
    own = policy_from_entries([entry("ghcr.io/siderolabs/**"), entry("my.test/**")])
    policy = override(default_policy(), own)
    assert len(policy.rules) == 2
    (group,) = policy.groups_for("ghcr.io/siderolabs/imager")
    assert isinstance(group[0].signer, KeySigner)


def test_a_broad_unverified_rule_does_not_reach_official_images() -> None:
    own = policy_from_entries([entry("**", accept_unverified=True)])
    policy = override(default_policy(), own)
    (group,) = policy.groups_for("ghcr.io/siderolabs/imager")
    assert isinstance(group[0].signer, KeylessSigner)
    (group,) = policy.groups_for("other.test/x")
    assert isinstance(group[0].signer, AcceptUnverified)


def test_tightening_adds_a_group_and_covers_no_new_name() -> None:
    base = policy_from_entries([entry("a.test/**")])
    extra = policy_from_entries(
        [entry("a.test/x", key=OTHER), entry("b.test/**", key=OTHER)], origin=Origin.PROJECT_FILE
    )
    policy = tighten(base, extra)
    assert len(policy.groups_for("a.test/x")) == 2
    assert len(policy.groups_for("a.test/y")) == 1
    with pytest.raises(VerificationRefused):
        policy.groups_for("b.test/x")


def test_tightening_drops_what_would_loosen() -> None:
    base = policy_from_entries([entry("a.test/**")])
    loose = policy_from_entries([entry("a.test/**", accept_unverified=True)])
    assert tighten(base, loose) == base


def test_a_project_file_may_not_accept_unverified() -> None:
    with pytest.raises(SettingsError, match="project"):
        policy_from_entries(
            [entry("a.test/**", accept_unverified=True)], origin=Origin.PROJECT_FILE
        )


def test_settings_of_user_and_project_are_joined() -> None:
    user = TrustEntries("user.toml", Path(), (entry("a.test/**"),), True)
    project = TrustEntries("project.toml", Path(), (entry("**", key=OTHER),), False)
    policy = policy_from_settings([user, project])
    assert len(policy.groups_for("a.test/x")) == 2
    assert len(policy.groups_for("ghcr.io/siderolabs/imager")) == 2
    with pytest.raises(VerificationRefused):
        policy.groups_for("elsewhere.test/x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "pattern"),
        ({"pattern": "a.b/**"}, "one thing"),
        ({"pattern": "a.b/**", "key": KEY, "issuer": "https://x"}, "one thing"),
        ({"pattern": "a.b/**", "key": KEY, "accept_unverified": True}, "one thing"),
        ({"pattern": "a.b/**", "accept_unverified": False}, "one thing"),
        ({"pattern": "a.b/**", "accept_unverified": "yes"}, "true or false"),
        ({"pattern": "a.b/**", "accept_unverified": True, "require_tlog": True}, "means nothing"),
        ({"pattern": "a.b/**", "kee": KEY}, "unknown key"),
        ({"pattern": "a.b/**", "key": KEY, "hash_algorithm": "md5"}, "hash algorithm"),
        ({"pattern": "a.b/**", "key": "no-such-file.pub"}, "cannot be read"),
        ({"pattern": "a.b/**", "hash_algorithm": "sha256"}, "needs a key"),
        ({"pattern": "a.b/**", "issuer": "https://x"}, "either identity"),
        ({"pattern": "a.b/**", "identity": "x@y"}, "either issuer"),
        ({"pattern": "a.b/**", "issuer": "https://x", "identity": ""}, "not empty"),
        (
            {"pattern": "a.b/**", "issuer": "x", "issuer_regexp": "x", "identity": "y"},
            "either issuer",
        ),
        ({"pattern": "a.b/**", "issuer": "x", "identity_regexp": "(unclosed"}, "Go's syntax"),
        ({"pattern": "a.b/**", "issuer": "x", "identity_regexp": "(?=ahead)x"}, "Go's syntax"),
        ({"pattern": 5, "key": KEY}, "not empty"),
        ("not a table", "not a table"),
    ],
)
def test_an_entry_that_is_refused(fields: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        policy_from_entries([fields], source="my.toml")
    assert caught.value.exit_code == 2


def test_a_private_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SettingsError, match="private key") as caught:
        policy_from_entries([entry("a.b/**", key="key.pem")], base_dir=tmp_path)
    assert "c2VjcmV0" not in str(caught.value.as_dict())


@pytest.mark.parametrize("bits", [1024, 512])
def test_a_weak_rsa_key_is_refused(bits: int, tmp_path: Path) -> None:
    from subprocess import run

    path = tmp_path / "weak.pub"
    private = tmp_path / "weak.pem"
    run(["openssl", "genrsa", "-out", private, str(bits)], check=True, capture_output=True)
    run(
        ["openssl", "rsa", "-in", private, "-pubout", "-out", path], check=True, capture_output=True
    )
    with pytest.raises(SettingsError, match="not a usable public key"):
        policy_from_entries([entry("a.b/**", key="weak.pub")], base_dir=tmp_path)


def test_an_open_pattern_draws_a_warning() -> None:
    anchored = policy_from_entries(
        [entry("a.b/**", issuer="https://x", identity_regexp=r"@siderolabs\.com$")]
    )
    assert anchored.warnings == ()
    open_ended = policy_from_entries(
        [entry("a.b/**", issuer="https://x", identity_regexp="siderolabs")]
    )
    assert "open at both ends" in open_ended.warnings[0]
    escaped = policy_from_entries([entry("a.b/**", issuer="https://x", identity_regexp=r"a\$b")])
    assert escaped.warnings


def test_equal_specificity_of_different_patterns_keeps_both() -> None:
    policy = TrustPolicy(policy_from_entries([entry("a.b/*c"), entry("a.b/*d", key=OTHER)]).rules)
    assert len(policy.groups_for("a.b/xc")) == 1
