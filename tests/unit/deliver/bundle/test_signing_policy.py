"""The reserved pattern ``bundles``: what it covers, what an entry may say, who may grant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import SettingsError, VerificationRefused
from local_imager.settings import TrustEntries
from local_imager.sources.patterns import BUNDLES, NamePattern
from local_imager.sources.trust import Origin, default_policy, override, tighten
from local_imager.sources.trust_entries import policy_from_entries, policy_from_settings
from tests.unit.sources.forge import Signing

KEY, OTHER = Signing().pem, Signing().pem


def entry(pattern: str, **more: Any) -> dict[str, Any]:
    return {"pattern": pattern, **(more or {"key": KEY})}


@pytest.mark.parametrize(
    "name", ["bundles", "registry.example/bundles", "bundles/x", "localhost/b"]
)
def test_the_reserved_pattern_covers_no_image(name: str) -> None:
    pattern = NamePattern.parse("Bundles")
    assert pattern.for_bundles
    assert not pattern.matches(name)
    with pytest.raises(VerificationRefused, match="no trust policy covers"):
        policy_from_entries([entry(BUNDLES)]).groups_for(name)


@pytest.mark.parametrize("pattern", ["**", "*", "bundle*", "*/bundles", "bundles/**", "bundless"])
def test_no_image_pattern_covers_a_bundle(pattern: str) -> None:
    assert not NamePattern.parse(pattern).for_bundles
    assert policy_from_entries([entry(pattern)]).bundle_groups() == ((),)


def test_the_shipped_policy_vouches_for_no_bundle() -> None:
    assert default_policy().bundle_groups() == ((),)


def test_a_rule_for_bundles_takes_nothing_from_a_rule_for_every_image() -> None:
    policy = policy_from_entries([entry("**", key=OTHER), entry(BUNDLES)])
    (images,) = policy.groups_for("registry.example/bundles")
    (bundles,) = policy.bundle_groups()
    assert [rule.pattern.text for rule in images] == ["**"]
    assert [rule.pattern.text for rule in bundles] == [BUNDLES]


def test_entries_stand_side_by_side_and_an_own_file_replaces() -> None:
    both = policy_from_entries([entry(BUNDLES), entry(BUNDLES, key=OTHER)])
    assert len(both.bundle_groups()[0]) == 2
    replaced = override(both, policy_from_entries([entry(BUNDLES, accept_unverified=True)]))
    assert len(replaced.bundle_groups()[0]) == 1


def test_a_projects_file_asks_and_grants_nothing() -> None:
    project = TrustEntries("project.toml", Path(), (entry(BUNDLES, key=OTHER),), False)
    assert [len(group) for group in policy_from_settings([project]).bundle_groups()] == [0, 1]
    user = TrustEntries("user.toml", Path(), (entry(BUNDLES),), True)
    policy = policy_from_settings([user, project])
    assert [group[0].origin for group in policy.bundle_groups()] == [
        Origin.USER_FILE,
        Origin.PROJECT_FILE,
    ]
    images = TrustEntries("project.toml", Path(), (entry("**", key=OTHER),), False)
    assert len(policy_from_settings([user, images]).bundle_groups()) == 1


def test_only_an_own_file_accepts_unverified_bundles() -> None:
    loose = entry(BUNDLES, accept_unverified=True)
    with pytest.raises(SettingsError, match="project's file"):
        policy_from_entries([loose], origin=Origin.PROJECT_FILE)
    base = policy_from_entries([entry(BUNDLES)])
    assert tighten(base, policy_from_entries([loose])) == base


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"threshold": 2}, "a bundle has one signature"),
        ({"rollback": "refuse"}, "rollback means nothing for bundles"),
        ({"rollback": "warn"}, "rollback means nothing for bundles"),
    ],
)
def test_what_a_bundle_could_never_satisfy_is_refused_at_load(
    more: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        policy_from_entries([{"pattern": BUNDLES, "key": KEY, **more}], source="my.toml")
    assert caught.value.source == "my.toml: trust entry 1"
    assert caught.value.hint
    assert policy_from_entries([{"pattern": "a.b/**", "key": KEY, **more}]).rules
