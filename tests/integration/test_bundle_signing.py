"""Signatures of bundles between this program and the real cosign, both ways."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from local_imager.deliver.bundle.form.signing import (
    check_signature,
    load_private_key,
    sign_manifest,
)
from local_imager.errors import InputError, VerificationRefused
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from tests.labfolder import Lab, run

pytestmark = pytest.mark.lab

MANIFEST = b'{"format":1,"mediaType":"application/vnd.local-imager.bundle.v1+json"}'
KINDS = {
    "ed25519": ("ed25519",),
    "ecdsa-p256": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ecdsa-p384": ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "rsa-3072": ("RSA", "-pkeyopt", "rsa_keygen_bits:3072"),
}
OFFLINE = ("--tlog-upload=false", "--use-signing-config=false")


def key_pair(kind: str, folder: Path) -> tuple[Path, Path]:
    """Make a key as a person does, and its public half."""
    private, public = folder / "bundle.key", folder / "bundle.pub"
    run("openssl", "genpkey", "-quiet", "-algorithm", *KINDS[kind], "-out", private)
    run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def wants(public: Path, **more: str) -> TrustPolicy:
    return policy_from_entries([{"pattern": BUNDLES, "key": str(public), **more}])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.json"
    path.write_bytes(MANIFEST)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_cosign_accepts_what_this_program_signs(
    kind: str, lab: Lab, manifest: Path, tmp_path: Path
) -> None:
    private, public = key_pair(kind, tmp_path)
    signature = tmp_path / "site.tar.sigstore.json"
    signature.write_bytes(sign_manifest(MANIFEST, load_private_key(private)))
    ask = ("verify-blob", "--key", public, "--bundle", signature, "--insecure-ignore-tlog")
    lab.cosign(*ask, manifest)
    manifest.write_bytes(MANIFEST + b"\n")
    with pytest.raises(AssertionError, match=r"invalid signature|failed to verify|does not match"):
        lab.cosign(*ask, manifest)


# cosign v3.1.3 makes bundles with Ed25519 keys that it does not accept itself (no digest in them).
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"ed25519"}))
def test_this_program_accepts_what_cosign_signs(
    kind: str, lab: Lab, manifest: Path, tmp_path: Path
) -> None:
    private, public = key_pair(kind, tmp_path)
    signature = tmp_path / "site.tar.sigstore.json"
    lab.cosign("import-key-pair", "--key", private, "--output-key-prefix", tmp_path / "c")
    lab.cosign("sign-blob", "--key", tmp_path / "c.key", *OFFLINE, "--bundle", signature, manifest)
    # Of a P-384 key cosign signs the SHA-384, which a rule has to say.
    policy = wants(public, hash_algorithm="sha384" if kind == "ecdsa-p384" else "sha256")
    signed = check_signature(MANIFEST, signature.read_bytes(), policy)
    assert signed is not None
    assert signed.rule == "bundles (user-file)"
    with pytest.raises(VerificationRefused):
        check_signature(MANIFEST + b"\n", signature.read_bytes(), policy)


def test_what_the_hint_for_cosigns_own_key_says_works(
    lab: Lab, manifest: Path, tmp_path: Path
) -> None:
    key, file = lab.root / "keys" / "lab.key", tmp_path / "site.tar"
    with pytest.raises(InputError, match="cosign's own format") as caught:
        load_private_key(key)
    advice, _, _ = caught.value.hint.partition("; or ")
    command = advice.partition(": ")[2].replace("KEY", str(key)).replace("FILE", str(file))
    with tarfile.open(file, "w") as archive:
        archive.add(manifest, "bundle.json")
    manifest.unlink()
    path = f"{lab.root / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"}
    run("sh", "-c", command, env=env, cwd=tmp_path)
    signature = (tmp_path / "site.tar.sigstore.json").read_bytes()
    signed = check_signature(MANIFEST, signature, wants(lab.root / "lab.pub"))
    assert signed is not None
