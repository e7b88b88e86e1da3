"""The signature of a bundle: made with the near side's key, judged by the far side's policy.

It is detached: a Sigstore bundle of version 0.3 beside the file, over the bytes of ``bundle.json``
(which names every blob by digest). So the file's own bytes repeat whoever signs, cosign makes and
checks the same signature, and one signature stands for every part of a set.

Rules for bundles are ``[[trust]]`` entries with the reserved pattern ``bundles``. An image is
never accepted because of one: it has its own signature. Assets and documents have none, so only a
:class:`SignedBy` vouches for them.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from local_imager.errors import InputError, VerificationRefused
from local_imager.events import NULL_SINK, EventSink, Message, printable
from local_imager.oci.blobs import open_regular
from local_imager.oci.model import Digest, canonical_json
from local_imager.sources.blob import candidate_of
from local_imager.sources.bundle import MAX_BUNDLE_BYTES, parse_bundle
from local_imager.sources.candidates import Candidate, Finding
from local_imager.sources.keys import MAX_KEY_FILE_BYTES, PublicKey, key_from_loaded
from local_imager.sources.patterns import BUNDLES
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.trial import Outcome, Signatures, try_group
from local_imager.sources.trust import Origin, TrustPolicy, TrustRule, override
from local_imager.sources.trust_entries import policy_from_entries

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MEDIA_SIGNATURE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURE_SUFFIX: Final = ".sigstore.json"
KEY_VARIABLE: Final = "LOCAL_IMAGER_KEY_PASSPHRASE"
_PART: Final = re.compile(r"\.part[0-9]+of[0-9]+(?=\.[^.]+$|$)")
_NEW_KEY: Final = "make a key for this purpose: openssl genpkey -algorithm ed25519 -out KEY"
_COSIGN_FORMAT: Final = (
    "is in cosign's own format, which only cosign reads",
    "let cosign sign what is in the file: tar -xOf FILE bundle.json > bundle.json && "
    "cosign sign-blob --key KEY --tlog-upload=false --use-signing-config=false "
    f"--bundle FILE.sigstore.json bundle.json; or {_NEW_KEY}",
)
# Labels of PEM files that are no key to sign with here, and what a person can do about each.
_FOREIGN_KEYS: Final = {
    b" SIGSTORE PRIVATE KEY-": _COSIGN_FORMAT,
    b" COSIGN PRIVATE KEY-": _COSIGN_FORMAT,
    b" OPENSSH PRIVATE KEY-": ("is in the format of OpenSSH", _NEW_KEY),
    b"-BEGIN PUBLIC KEY-": (
        "is a public key, and a private one signs",
        "name the private half here; the public one belongs into the far side's policy",
    ),
}
_KEY_KINDS: Final = "a PEM file with BEGIN PRIVATE KEY: Ed25519, ECDSA P-256/384/521 or RSA ≥ 2048"
_ASK_FOR_RULE: Final = (
    f'a [[trust]] entry with pattern = "{BUNDLES}" in your own settings or --policy says whose '
    "signature vouches for them"
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs bundles; ``public`` is its other half. Shows nothing of itself."""

    public: PublicKey
    _private: PrivateKeyTypes = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """Sign with SHA-256; the same bytes each time where the installed OpenSSL can (RFC 6979).

        SHA-256 also for P-384 and P-521, since that is what a policy takes a key for unless it
        says otherwise.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

        key = self._private
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key.sign(data)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - made by load_private_key
        try:
            return key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:  # OpenSSL before 3.2
            return key.sign(data, ec.ECDSA(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class SignedBy:
    """Who vouches for a bundle: the key id or identity, the rule that accepted, what was shown."""

    signer: str
    rule: str
    evidence: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object for reports."""
        return {"signer": self.signer, "policy": self.rule, "evidence": dict(self.evidence)}


def load_private_key(
    path: Path, passphrase: Callable[[], bytes] | None = None, sink: EventSink = NULL_SINK
) -> SigningKey:
    """Read a private key from a PEM file (PKCS #8, SEC 1 or PKCS #1).

    ``passphrase`` is asked only when the file is encrypted. A file that others can read draws a
    warning. Raises :class:`InputError`, which never repeats anything of the file.
    """
    pem = _read_key_file(path, sink)
    source = str(path)
    private = _decoded(pem, None, source)
    if private is None:
        if passphrase is None:
            raise InputError(
                f"the key {path} is encrypted",
                hint=f"put its passphrase into the environment variable {KEY_VARIABLE}, "
                "or sign at a terminal, where it is asked for",
                code="key-passphrase",
                source=source,
            )
        private = _decoded(pem, passphrase(), source)
    if private is None:
        raise _unusable(source)
    try:
        return SigningKey(key_from_loaded(private.public_key(), "sha256"), private)
    except ValueError:
        raise _unusable(source) from None


def _read_key_file(path: Path, sink: EventSink) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            pem = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"the key {path} cannot be read: {error.strerror}", source=str(path)
        ) from error
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise _unusable(str(path))
    _refuse_foreign(path, pem)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        text = f"other users of this machine may read the key {path}: chmod 600 {path}"
        sink.emit(Message(printable(text), "warning"))
    return pem


def _refuse_foreign(path: Path, pem: bytes) -> None:
    for label, (what, hint) in _FOREIGN_KEYS.items():
        if label in pem:
            raise InputError(f"{path} {what}", hint=hint, code="key-format", source=str(path))


def _decoded(pem: bytes, passphrase: bytes | None, source: str) -> PrivateKeyTypes | None:
    """Return the key, None when it is encrypted and there is no passphrase yet."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # Errors of the library are not chained: what they say of a secret file is not ours to show.
    try:
        return load_pem_private_key(pem, passphrase)
    except TypeError:
        return None
    except (ValueError, UnsupportedAlgorithm):
        if passphrase is None:
            raise _unusable(source) from None
        raise InputError(
            f"the key {source} does not open with this passphrase",
            hint=f"check {KEY_VARIABLE}, or what was typed",
            code="key-passphrase",
            source=source,
        ) from None


def _unusable(source: str) -> InputError:
    return InputError(
        f"{source} is not a private key that can sign",
        hint=_KEY_KINDS,
        code="key-format",
        source=source,
    )


def sign_manifest(manifest: bytes, key: SigningKey) -> bytes:
    """Return the Sigstore bundle (version 0.3, canonical JSON) over the bytes of ``bundle.json``.

    ``cosign verify-blob --key K.pub --bundle F --insecure-ignore-tlog bundle.json`` accepts it.
    The hint is the key's name as cosign writes it: the SHA-256 of its DER form.
    """
    digest = Digest.of(manifest)
    return canonical_json(
        {
            "mediaType": MEDIA_SIGNATURE,
            "verificationMaterial": {"publicKey": {"hint": _base64(Digest.of(key.public.der))}},
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": _base64(digest)},
                "signature": base64.b64encode(key.sign(manifest)).decode(),
            },
        }
    )


def _base64(digest: Digest) -> str:
    return base64.b64encode(bytes.fromhex(digest.hex)).decode()


def signature_path(file: Path) -> Path:
    """Return where the signature of a bundle lies: ``site.tar.sigstore.json`` beside the file.

    One name for the bundle in every form, because it signs the manifest and not the file:
    ``site.tar``, ``site.tar.zst``, ``site.part1of3.tar`` and ``site.part2of3.tar.zst``.
    """
    name = _PART.sub("", file.name.removesuffix(".zst"))
    return file.with_name(name + SIGNATURE_SUFFIX)


def read_signature(files: Sequence[Path], given: Path | None = None) -> bytes | None:
    """Return the bytes of the signature: the file that was named, else that beside any part.

    None when there is none beside them. Raises :class:`InputError` for one that cannot be read.
    """
    places = (given,) if given is not None else dict.fromkeys(map(signature_path, files))
    for place in places:
        try:
            # What was not named by a person may be a FIFO, which nobody ever writes to.
            with place.open("rb") if given is not None else _open_beside(place) as file:
                # One byte more than allowed, so that the check for size can refuse it.
                return file.read(MAX_BUNDLE_BYTES + 1)
        except FileNotFoundError as error:
            if given is not None:
                raise InputError(f"there is no signature {place}", source=str(place)) from error
        except OSError as error:
            raise InputError(
                f"the signature {place} cannot be read: {error.strerror}", source=str(place)
            ) from error
    return None


def _open_beside(place: Path) -> BinaryIO:
    return os.fdopen(open_regular(place), "rb")


def policy_with_key(policy: TrustPolicy, key: Path) -> TrustPolicy:
    """Return the policy in which this public key (PEM) vouches for bundles, and no other signer.

    For ``--key``: what the settings say of images stays, as do a project's tightening layers.
    Raises :class:`SettingsError` for a file that is no public key.
    """
    entry = {"pattern": BUNDLES, "key": str(key)}
    return override(policy, policy_from_entries([entry], base_dir=Path.cwd(), origin=Origin.FLAGS))


def check_signature(
    manifest: bytes,
    untrusted_bundle: bytes | None,
    policy: TrustPolicy,
    sink: EventSink = NULL_SINK,
) -> SignedBy | None:
    """Judge a bundle by its manifest's signature; returns who vouches for it, None for nobody.

    ``manifest`` are the bytes of ``bundle.json``, ``untrusted_bundle`` those of the signature
    file. Nobody vouches where no rule for bundles is in force, where only a project's file has one
    (it has to accept all the same), and where a rule accepts unverified bundles (warned about);
    :func:`unvouched` puts that into words. Raises :class:`VerificationRefused` when a rule
    demands a signature that is not there or not right; no bundle is of use then.
    """
    groups = policy.bundle_groups()
    base, *layers = [_tried(group, manifest, untrusted_bundle) for group in groups]
    for outcome in (base, *layers):
        if outcome.group and not outcome.satisfied:
            raise _refusal(outcome, untrusted_bundle is None)
    if base.waived is not None:
        sink.emit(Message(unvouched(policy), "warning"))
    if not base.signed:
        return None
    rule, acceptance = base.accepted[0]
    evidence = {
        "manifest": str(Digest.of(manifest)),
        "accepted_by": [
            {"rule": rule.name, "wants": rule.signer.describe(), **acceptance.as_dict()}
            for outcome in (base, *layers)
            for rule, acceptance in outcome.accepted
        ],
    }
    return SignedBy(acceptance.signer, rule.name, evidence)


def without_signatures(paths: Sequence[str]) -> list[str]:
    """Return the files but for signatures that a shell's ``site.tar*`` names along with them.

    When there are only signatures they stay: whoever names one is told that it is no bundle.
    """
    return [path for path in paths if not path.endswith(SIGNATURE_SUFFIX)] or list(paths)


def unvouched(policy: TrustPolicy) -> str:
    """Say in a sentence why nobody vouches for a bundle that :func:`check_signature` let pass."""
    base, *layers = policy.bundle_groups()
    if base:
        where = base[0].source or "the settings"
        return (
            f"WARNING: the bundle's signature was not demanded, as accept_unverified for "
            f"{BUNDLES} in {where} says: nobody vouches for its assets and documents"
        )
    if layers:
        where = layers[0][0].source or "the project's file"
        return (
            f"nobody vouches for the bundle's assets and documents: it is signed as {where} "
            f"demands, but a project's file only narrows trust; {_ASK_FOR_RULE}"
        )
    return (
        "nobody vouches for the bundle's assets and documents: there is no rule for bundles; "
        f"{_ASK_FOR_RULE}"
    )


def _tried(
    group: tuple[TrustRule, ...], manifest: bytes, untrusted_bundle: bytes | None
) -> Outcome:
    if untrusted_bundle is None:
        return try_group(group, Signatures(iter(())), exhaustive=False)
    return try_group(group, Signatures(_found(manifest, untrusted_bundle)), exhaustive=False)


def _found(manifest: bytes, untrusted_bundle: bytes) -> Iterator[Candidate | Finding]:
    try:
        bundle = parse_bundle(untrusted_bundle)
        if bundle.version != "0.3":
            raise Rejected(Reason.UNSUPPORTED_FORM, f"Sigstore bundle of version {bundle.version}")
        if bundle.message is None:
            raise Rejected(
                Reason.UNSUPPORTED_FORM, "the file holds an attestation, not a signature of bytes"
            )
        stated = bundle.message.digest
        if stated and stated.hex() != Digest.of(manifest).hex:
            # Told before the signature is looked at, since it is the better explanation.
            raise Rejected(
                Reason.SUBJECT_MISMATCH,
                "the signature file is of another bundle, or bundle.json was changed",
            )
        yield candidate_of(bundle, manifest)
    except Rejected as error:
        yield Finding("unknown", "signature file", error.reason, error.message)


def _refusal(outcome: Outcome, unsigned: bool) -> VerificationRefused:
    wanted = " or ".join(f"{rule.name} wants {rule.signer.describe()}" for rule in outcome.group)
    if unsigned:
        return VerificationRefused(
            f"the bundle is refused: no signature file came with it. Policy: {wanted}",
            hint=f"put NAME.tar{SIGNATURE_SUFFIX} beside it, or name it with --signature",
            code=Reason.NO_SIGNATURE.code,
        )
    (verdict,) = outcome.verdicts
    reason = verdict.reason or Reason.SIGNATURE_INVALID
    return VerificationRefused(
        f"the bundle is refused: {verdict.detail or reason.meaning}. Policy: {wanted}",
        hint="ask who made it for the signature of this very bundle; if it is right, the policy "
        "has to name its signer",
        code=reason.code,
        tried=(str(verdict),),
    )
