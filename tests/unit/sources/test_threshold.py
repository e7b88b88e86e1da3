"""Thresholds: so many distinct signers, of the rules of the most specific pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_imager.errors import SettingsError, VerificationRefused
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor
from local_imager.sources.trust import Origin, TrustPolicy, override, tighten
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.verify import VerifiedImage, examine_image, verify_image
from tests.unit.sources.forge import REGISTRY, Forge, Signing

NAME = "siderolabs/imager"
ALICE, BOB, CAROL, EVE = Signing(), Signing(), Signing(), Signing()


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "upstream")


@pytest.fixture
def top(forge: Forge) -> Descriptor:
    return forge.image(NAME, "v1", {}, ("amd64",))


def wants(count: int, *keys: Signing, origin: Origin = Origin.USER_FILE) -> TrustPolicy:
    entries = [
        {"pattern": f"{REGISTRY}/**", "key": key.pem, "threshold": count if n == 0 else 1}
        for n, key in enumerate(keys)
    ]
    return policy_from_entries(entries, origin=origin)


def check(forge: Forge, top: Descriptor, policy: TrustPolicy) -> VerifiedImage:
    source = LayoutSource.open(forge.layout.path)
    return verify_image(source, forge.reference(NAME, "v1"), top, policy)


def test_enough_distinct_signers_in_any_form(forge: Forge, top: Descriptor) -> None:
    forge.sign_bundle(NAME, top, EVE.bundle(top.digest), CAROL.bundle(top.digest))
    forge.sign_legacy(NAME, top, ALICE)
    image = check(forge, top, wants(2, ALICE, BOB, CAROL))
    assert len(image.signer.split(", ")) == 2
    accepted = image.evidence["accepted_by"]
    assert isinstance(accepted, list) and len(accepted) == 2
    assert image.evidence["thresholds"] == [2]


def test_one_signer_counts_once(forge: Forge, top: Descriptor) -> None:
    forge.sign_bundle(NAME, top, ALICE.bundle(top.digest), ALICE.bundle(top.digest))
    forge.sign_legacy(NAME, top, ALICE, ALICE, EVE)
    with pytest.raises(VerificationRefused) as caught:
        check(forge, top, wants(2, ALICE, ALICE, BOB))
    assert caught.value.code == "threshold"
    assert "1 of 2" in caught.value.message


def test_nobody_is_another_reason_than_too_few(forge: Forge, top: Descriptor) -> None:
    forge.sign_legacy(NAME, top, EVE)
    with pytest.raises(VerificationRefused) as caught:
        check(forge, top, wants(2, ALICE, BOB))
    assert caught.value.code == "signature-invalid"


def test_a_project_can_ask_for_more_signers_and_not_for_fewer(
    forge: Forge, top: Descriptor
) -> None:
    forge.sign_legacy(NAME, top, ALICE)
    project = wants(2, ALICE, BOB, origin=Origin.PROJECT_FILE)
    with pytest.raises(VerificationRefused):
        check(forge, top, tighten(wants(1, ALICE), project))
    project = wants(1, ALICE, origin=Origin.PROJECT_FILE)
    with pytest.raises(VerificationRefused) as caught:
        check(forge, top, tighten(wants(2, ALICE, BOB), project))
    assert caught.value.code == "threshold"
    assert check(forge, top, tighten(wants(1, ALICE), project)).digest == top.digest


def test_the_examination_shows_each_layer(forge: Forge, top: Descriptor) -> None:
    forge.sign_legacy(NAME, top, EVE, ALICE, BOB)
    policy = tighten(wants(1, ALICE), wants(1, BOB, origin=Origin.PROJECT_FILE))
    source = LayoutSource.open(forge.layout.path)
    found = examine_image(source, forge.reference(NAME, "v1"), top, policy)
    assert found.image is not None and found.refusal is None
    assert [outcome.satisfied for outcome in found.outcomes] == [True, True]
    assert [one.acceptance is not None for one in found.verdicts] == [False, True, True]


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.5, 1000])
def test_a_threshold_is_a_small_number(count: object) -> None:
    with pytest.raises(SettingsError):
        policy_from_entries([{"pattern": "a.b/**", "key": ALICE.pem, "threshold": count}])


@pytest.mark.parametrize("key", ["threshold", "rollback"])
def test_they_mean_nothing_without_verification(key: str) -> None:
    value: object = 2 if key == "threshold" else "refuse"
    with pytest.raises(SettingsError):
        policy_from_entries([{"pattern": "a.b/**", "accept_unverified": True, key: value}])


def test_a_threshold_out_of_reach_draws_a_warning() -> None:
    assert "no image can pass" in wants(2, ALICE, ALICE).warnings[0]
    assert not wants(2, ALICE, BOB).warnings
    keyless = {"pattern": "a.b/**", "issuer": "https://i", "identity_regexp": "^a$"}
    assert not policy_from_entries([{**keyless, "threshold": 3}]).warnings


def test_rollback_is_one_of_two_words() -> None:
    with pytest.raises(SettingsError):
        policy_from_entries([{"pattern": "a.b/**", "key": ALICE.pem, "rollback": "ignore"}])


def test_a_later_file_replaces_the_threshold_with_the_pattern(
    forge: Forge, top: Descriptor
) -> None:
    forge.sign_legacy(NAME, top, ALICE)
    assert check(forge, top, override(wants(2, ALICE, BOB), wants(1, ALICE))).digest == top.digest
