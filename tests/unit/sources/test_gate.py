"""The gate's rules beyond the fixtures: what covers what, warnings, layers, ceilings."""

from __future__ import annotations

import ast
import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from local_imager.errors import IntegrityError, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.layoutfiles import DirectoryFiles
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.source import RawManifest
from local_imager.sources import candidates
from local_imager.sources.trust import Origin, TrustPolicy, default_policy, override, tighten
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.verify import VerifiedImage, verify_image
from tests.unit.sources.forge import REGISTRY, Forge, Signing, as_json

NAME = "siderolabs/imager"
FILES = {"hello": b"world"}


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "upstream")


@pytest.fixture
def top(forge: Forge) -> Descriptor:
    return forge.image(NAME, "v1.9.0", FILES, ("amd64", "arm64"))


@pytest.fixture
def signing() -> Signing:
    return Signing()


def check(
    forge: Forge, top: Descriptor, policy: TrustPolicy, sink: RecordingSink | None = None
) -> VerifiedImage:
    source = LayoutSource.open(forge.layout.path)
    reference = forge.reference(NAME, "v1.9.0")
    return verify_image(source, reference, top, policy, sink=sink or RecordingSink())


def refused(forge: Forge, top: Descriptor, policy: TrustPolicy) -> VerificationRefused:
    with pytest.raises(VerificationRefused) as caught:
        check(forge, top, policy)
    assert caught.value.exit_code == 3
    return caught.value


def test_only_the_gate_makes_verified_images() -> None:
    source = Path(__file__).parents[3] / "src" / "local_imager"
    makers = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.id if isinstance(called, ast.Name) else ""
                name = called.attr if isinstance(called, ast.Attribute) else name
                if name == "VerifiedImage":
                    makers.add(str(path.relative_to(source)))
    assert makers == {"sources/verify.py"}


@pytest.mark.parametrize("form", ["legacy", "bundle"])
def test_both_forms_are_accepted_and_say_who_signed(
    form: str, forge: Forge, top: Descriptor, signing: Signing
) -> None:
    if form == "legacy":
        forge.sign_legacy(NAME, top, signing)
    else:
        forge.sign_bundle(NAME, top, signing.bundle(top.digest))
    image = check(forge, top, signing.policy())
    assert image.digest == top.digest
    assert image.signer.startswith("sha256:")
    assert not image.unverified
    evidence = json.loads(json.dumps(dict(image.evidence)))
    assert evidence["digest"] == str(top.digest)
    assert evidence["accepted_by"][0]["signer"] == image.signer


def test_a_childs_signature_does_not_cover_the_index(forge: Forge, signing: Signing) -> None:
    child = forge.manifest(FILES)
    top = forge.index(child)
    forge.layout.set_ref(str(forge.reference(NAME, "v1.9.0")), top)
    forge.sign_legacy(NAME, child, signing)
    forge.sign_bundle(NAME, child, signing.bundle(child.digest))
    assert refused(forge, top, signing.policy()).code == "no-signature"
    assert check(forge, child, signing.policy()).digest == child.digest


def test_the_message_names_image_policy_and_what_was_tried(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    forge.sign_legacy(NAME, top, Signing(), Signing())
    forge.sign_bundle(NAME, top, Signing().bundle(top.digest))
    error = refused(forge, top, signing.policy())
    assert error.code == "signature-invalid"
    assert f"{REGISTRY}/{NAME}:v1.9.0" in error.message
    assert f"{REGISTRY}/**" in error.message
    assert len(error.tried) == 3
    assert any("bundle-v0.3" in line for line in error.tried)
    assert any("layer 2" in line for line in error.tried)


def test_an_official_image_is_refused_with_an_explanation(tmp_path: Path, signing: Signing) -> None:
    forge = Forge(tmp_path / "ghcr", "ghcr.io")
    top = forge.image(NAME, "v1.9.0", FILES, ("amd64",))
    forge.sign_legacy(NAME, top, signing)
    error = refused(forge, top, default_policy())
    assert error.exit_code == 3
    assert error.code == "material-mismatch"
    assert "keyless" in error.message


def test_a_lab_key_is_never_good_for_official_names(tmp_path: Path, signing: Signing) -> None:
    forge = Forge(tmp_path / "ghcr", "ghcr.io")
    top = forge.image(NAME, "v1.9.0", FILES, ("amd64",))
    forge.sign_legacy(NAME, top, signing)
    policy = override(default_policy(), signing.policy("**"))
    refused(forge, top, policy)


def test_accept_unverified_warns_and_is_recorded(forge: Forge, top: Descriptor) -> None:
    policy = policy_from_entries([{"pattern": f"{REGISTRY}/**", "accept_unverified": True}])
    sink = RecordingSink()
    image = check(forge, top, policy, sink)
    assert image.unverified
    assert "nobody" in image.signer
    warnings = [e for e in sink.events if isinstance(e, Message) and e.level == "warning"]
    assert len(warnings) == 1
    assert "WITHOUT VERIFICATION" in warnings[0].text
    check(forge, top, policy, sink)
    assert len([e for e in sink.events if isinstance(e, Message)]) == 2


def test_a_signed_image_is_not_called_unverified_where_both_rules_stand(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    pattern = f"{REGISTRY}/**"
    rules = [
        {"pattern": pattern, "accept_unverified": True},
        {"pattern": pattern, "key": signing.pem},
    ]
    forge.sign_legacy(NAME, top, signing)
    assert not check(forge, top, policy_from_entries(rules)).unverified


def test_a_tightening_layer_must_accept_too(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    second = Signing()
    forge.sign_legacy(NAME, top, signing)
    extra = policy_from_entries([{"pattern": "**", "key": second.pem}], origin=Origin.PROJECT_FILE)
    policy = tighten(signing.policy(), extra)
    refused(forge, top, policy)
    forge.sign_legacy(NAME, top, signing, second)
    image = check(forge, top, policy)
    assert len(json.loads(json.dumps(image.evidence["accepted_by"]))) == 2


def test_a_layer_is_asked_even_when_the_base_accepts_unverified(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    loose = policy_from_entries([{"pattern": "**", "accept_unverified": True}])
    extra = policy_from_entries([{"pattern": "**", "key": signing.pem}], origin=Origin.PROJECT_FILE)
    refused(forge, top, tighten(loose, extra))


def test_a_changed_index_is_an_integrity_fault(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    forge.sign_legacy(NAME, top, signing)
    path = forge.layout.blob_path(top.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"amd64", b"amd46"))
    with pytest.raises(IntegrityError) as caught:
        check(forge, top, signing.policy())
    assert caught.value.exit_code == 3


class Liar(LayoutSource):
    """A source that hands out other bytes than those asked for, unchecked."""

    swap: tuple[bytes, bytes] = (b"", b"")

    def manifest(self, reference: Reference, digest: Digest) -> RawManifest:
        """Return changed bytes under the digest asked for."""
        raw = super().manifest(reference, digest)
        return replace(raw, untrusted_data=raw.untrusted_data.replace(*self.swap))


def test_a_lying_source_is_found_out(forge: Forge, top: Descriptor, signing: Signing) -> None:
    forge.sign_legacy(NAME, top, signing)
    liar = Liar(DirectoryFiles(forge.layout.path))
    liar.swap = (b"arm64", b"arm65")
    with pytest.raises(IntegrityError):
        verify_image(liar, forge.reference(NAME, "v1.9.0"), top, signing.policy())
    liar.swap = (b"simplesigning", b"simplesignin6")
    with pytest.raises(VerificationRefused) as caught:
        verify_image(liar, forge.reference(NAME, "v1.9.0"), top, signing.policy())
    assert caught.value.code == "digest-mismatch"


def test_a_flood_of_signatures_has_a_ceiling(
    forge: Forge, top: Descriptor, signing: Signing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "MAX_LEGACY_LAYERS", 3)
    forge.sign_legacy(NAME, top, *(Signing() for _ in range(5)), signing)
    error = refused(forge, top, signing.policy())
    assert any("too-large" in line for line in error.tried)
    assert len(error.tried) == 4


def test_a_bundle_of_the_right_key_for_another_type_is_no_signature(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    forge.sign_bundle(NAME, top, signing.bundle(top.digest, "https://spdx.dev/Document"))
    assert refused(forge, top, signing.policy()).code == "predicate-mismatch"


def test_one_good_bundle_among_bad_ones_is_enough(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    good = signing.bundle(top.digest)
    forge.sign_bundle(NAME, top, b"{}", Signing().bundle(top.digest), b"\xff\xfe", good)
    assert check(forge, top, signing.policy()).digest == top.digest


def test_two_signatures_in_one_envelope_are_refused(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    document = json.loads(signing.bundle(top.digest))
    document["dsseEnvelope"]["signatures"] *= 2
    forge.sign_bundle(NAME, top, as_json(document))
    assert refused(forge, top, signing.policy()).code == "malformed"


def test_a_statement_of_another_in_toto_type_is_refused(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    document = json.loads(signing.bundle(top.digest))
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"]).replace(b"Statement/v1", b"Statement/v9")
    kind = envelope["payloadType"].encode()
    signature = signing.sign(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    forge.sign_bundle(NAME, top, as_json(document))
    assert refused(forge, top, signing.policy()).code == "payload-invalid"


def test_terminal_controls_in_signatures_do_not_reach_messages(
    forge: Forge, top: Descriptor, signing: Signing
) -> None:
    evil = as_json({"mediaType": "\x1b[31mRED", "verificationMaterial": {}, "dsseEnvelope": {}})
    forge.sign_bundle(NAME, top, evil)
    error = refused(forge, top, signing.policy())
    assert "\x1b" not in error.message + "".join(error.tried)
