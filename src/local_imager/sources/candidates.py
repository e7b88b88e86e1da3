"""Finding the signatures of an image, in each form that exists, with every byte checked.

A :class:`Candidate` is one signature with all that is needed to judge it; a :class:`Finding` is one
that could not even be read, and why. Whatever a registry or layout answers ends as one of the two;
only a source that cannot be reached raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from local_imager.errors import IntegrityError, NotFound, SourceError
from local_imager.events import printable
from local_imager.oci.model import Descriptor, Digest, Manifest, Reference, parse_manifest
from local_imager.oci.source import ImageSource
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.statement import (
    MAX_SIMPLE_SIGNING_BYTES,
    PREDICATE_IMAGE_SIGNATURE,
    Envelope,
    check_simple_signing,
    check_statement,
    parse_envelope,
)
from local_imager.sources.untrusted_json import bytes_field, decode_base64, parse_object

if TYPE_CHECKING:
    from local_imager.sources.tlog import LogEntry

Form = Literal["bundle-v0.3", "bundle-older", "cosign-legacy", "cosign-attestation", "unknown"]

MEDIA_SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
MEDIA_DSSE: Final = "application/vnd.dsse.envelope.v1+json"
ARTIFACT_LEGACY_SIGNATURE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE_PREFIX: Final = "application/vnd.dev.sigstore.bundle"
ANNOTATION_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
ANNOTATION_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
ANNOTATION_LOG_ENTRY: Final = "dev.sigstore.cosign/bundle"
ANNOTATION_TIMESTAMP: Final = "dev.sigstore.cosign/rfc3161timestamp"

# An image has one or two signatures and a few attestations; whoever can write to a registry can
# add any number, and each costs a download and a check.
MAX_REFERRERS: Final = 64
MAX_LEGACY_LAYERS: Final = 64
_SIGNATURE_BYTES: Final = 4096
_CERTIFICATE_BYTES: Final = 16 * 1024
_TIMESTAMP_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One signature that could not be read: where, its form, and the reason."""

    form: Form
    where: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """What came with a signature to check it with: certificate (DER), log entries, timestamps."""

    certificate: bytes = b""
    log_entries: tuple[LogEntry, ...] = ()
    timestamps: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A signature that was found and read; nothing of it is verified yet.

    ``data`` are the bytes under the signature, ``check_claim`` says whether they speak of the
    digest asked for (raises :class:`Rejected`). ``proof_required``: a log entry must come with an
    inclusion proof.
    """

    form: Form
    where: str
    signatures: tuple[bytes, ...]
    data: bytes = field(repr=False)
    payload: bytes | None = field(repr=False)
    check_claim: Callable[[], None]
    manifest: Digest
    material: Material
    proof_required: bool = False


@dataclass(frozen=True, slots=True)
class Finder:
    """Looks for the signatures of one digest; ``predicate_type`` says what kind is wanted."""

    source: ImageSource
    reference: Reference
    digest: Digest
    predicate_type: str = PREDICATE_IMAGE_SIGNATURE

    def found(self) -> Iterator[Candidate | Finding]:
        """Yield bundles first, then the older cosign form (or attestation), in their order."""
        yield from self._referrers()
        is_signature = self.predicate_type == PREDICATE_IMAGE_SIGNATURE
        suffix = "sig" if is_signature else "att"
        tag = f"sha256-{self.digest.hex}.{suffix}"
        form: Form = "cosign-legacy" if is_signature else "cosign-attestation"
        where = f"tag {tag[:19]}….{suffix}"
        try:
            descriptor = self.source.resolve(self.reference.with_tag(tag))
        except NotFound:
            return
        except (SourceError, Rejected) as error:
            yield _finding(form, where, error)
            return
        yield from self._legacy(descriptor, form, where)

    def _referrers(self) -> Iterator[Candidate | Finding]:
        try:
            descriptors = self.source.referrers(self.reference, self.digest)
        except SourceError as error:
            yield _finding("bundle-v0.3", "referrers", error)
            return
        for descriptor in descriptors[:MAX_REFERRERS]:
            yield from self._referrer(descriptor)
        if len(descriptors) > MAX_REFERRERS:
            detail = f"only the first {MAX_REFERRERS} of {len(descriptors)} were looked at"
            yield Finding("unknown", "referrers", Reason.TOO_LARGE, detail)

    def _referrer(self, descriptor: Descriptor) -> Iterator[Candidate | Finding]:
        where = f"referrer {descriptor.digest.short}"
        try:
            manifest = self._manifest(descriptor)
        except (SourceError, Rejected) as error:
            yield _finding("bundle-v0.3", where, error)
            return
        kind = manifest.artifact_type or descriptor.artifact_type or manifest.config.media_type
        if kind == ARTIFACT_LEGACY_SIGNATURE:
            if self.predicate_type == PREDICATE_IMAGE_SIGNATURE:
                yield from self._legacy(descriptor, "cosign-legacy", where)
        elif kind.startswith(BUNDLE_PREFIX):
            yield self._guarded("bundle-v0.3", where, partial(self._bundle, manifest, where))

    def _bundle(self, manifest: Manifest, where: str) -> Candidate:
        from local_imager.sources.bundle import MAX_BUNDLE_BYTES, parse_bundle

        if not manifest.layers:
            raise Rejected(Reason.SIGNATURE_MISSING, "the referrer lists no bundle")
        if len(manifest.layers) > 1:
            raise Rejected(Reason.MALFORMED, "the referrer lists more than one bundle")
        bundle = parse_bundle(self._blob(manifest.layers[0], MAX_BUNDLE_BYTES))
        if bundle.version != "0.3":
            raise Rejected(Reason.UNSUPPORTED_FORM, f"bundle of version {bundle.version}")
        envelope = bundle.envelope
        if envelope is None:
            raise Rejected(
                Reason.UNSUPPORTED_FORM, "the bundle signs a file, not a statement about an image"
            )
        return Candidate(
            "bundle-v0.3",
            where,
            envelope.signatures,
            envelope.encoded,
            envelope.untrusted_payload,
            lambda: check_statement(envelope, self.digest, self.predicate_type),
            manifest.digest,
            Material(bundle.certificate, bundle.log_entries, bundle.timestamps),
            proof_required=True,
        )

    def _legacy(
        self, descriptor: Descriptor, form: Form, where: str
    ) -> Iterator[Candidate | Finding]:
        try:
            manifest = self._manifest(descriptor)
            if not manifest.layers:
                raise Rejected(Reason.SIGNATURE_MISSING, "the manifest lists no signature")
        except (SourceError, Rejected) as error:
            yield _finding(form, where, error)
            return
        read = self._simple_signing if form == "cosign-legacy" else self._attestation
        for number, layer in enumerate(manifest.layers[:MAX_LEGACY_LAYERS], 1):
            place = f"{where}, layer {number}"
            yield self._guarded(form, place, partial(read, manifest, layer, place))
        if len(manifest.layers) > MAX_LEGACY_LAYERS:
            detail = f"only the first {MAX_LEGACY_LAYERS} layers were looked at"
            yield Finding(form, where, Reason.TOO_LARGE, detail)

    def _simple_signing(self, manifest: Manifest, layer: Descriptor, where: str) -> Candidate:
        if layer.media_type != MEDIA_SIMPLE_SIGNING:
            raise Rejected(Reason.UNSUPPORTED_FORM, f"layer of the type {layer.media_type[:80]!r}")
        encoded = layer.annotations.get(ANNOTATION_SIGNATURE, "")
        if not encoded:
            raise Rejected(Reason.SIGNATURE_MISSING, "the layer has no signature annotation")
        signature = decode_base64(encoded, "signature annotation", _SIGNATURE_BYTES)
        payload = self._blob(layer, MAX_SIMPLE_SIGNING_BYTES)
        return Candidate(
            "cosign-legacy",
            where,
            (signature,),
            payload,
            None,
            lambda: check_simple_signing(payload, self.digest),
            manifest.digest,
            _legacy_material(layer.annotations),
        )

    def _attestation(self, manifest: Manifest, layer: Descriptor, where: str) -> Candidate:
        if layer.media_type != MEDIA_DSSE:
            raise Rejected(Reason.UNSUPPORTED_FORM, f"layer of the type {layer.media_type[:80]!r}")
        from local_imager.sources.bundle import MAX_BUNDLE_BYTES

        untrusted_data = self._blob(layer, MAX_BUNDLE_BYTES)
        what = "attestation envelope"
        envelope: Envelope = parse_envelope(
            parse_object(untrusted_data, what, MAX_BUNDLE_BYTES), what
        )
        return Candidate(
            "cosign-attestation",
            where,
            envelope.signatures,
            envelope.encoded,
            envelope.untrusted_payload,
            lambda: check_statement(envelope, self.digest, self.predicate_type),
            manifest.digest,
            _legacy_material(layer.annotations),
        )

    def _guarded(
        self, form: Form, where: str, read: Callable[[], Candidate]
    ) -> Candidate | Finding:
        try:
            return read()
        except (SourceError, Rejected) as error:
            return _finding(form, where, error)

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        """Read a manifest by digest and check its bytes: no source is believed."""
        raw = self.source.manifest(self.reference, descriptor.digest)
        if Digest.of(raw.untrusted_data) != descriptor.digest:
            raise Rejected(Reason.DIGEST_MISMATCH, "a manifest does not match its digest")
        manifest = parse_manifest(raw.untrusted_data, raw.media_type, "signature manifest")
        if not isinstance(manifest, Manifest):
            raise Rejected(Reason.UNSUPPORTED_FORM, "the signature is an index, not a manifest")
        return manifest

    def _blob(self, descriptor: Descriptor, max_bytes: int) -> bytes:
        return read_blob(self.source, self.reference, descriptor, max_bytes)


def read_blob(
    source: ImageSource, reference: Reference, descriptor: Descriptor, max_bytes: int
) -> bytes:
    """Read a small blob whole, checked against size and digest.

    Raises :class:`Rejected` (too-large, digest-mismatch) or what the source raises.
    """
    if descriptor.size_bytes > max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"a signature blob is larger than {max_bytes} bytes")
    parts, size, hasher = [], 0, hashlib.sha256()
    for untrusted_chunk in source.blob(reference, descriptor):
        size += len(untrusted_chunk)
        if size > descriptor.size_bytes:
            break
        parts.append(untrusted_chunk)
        hasher.update(untrusted_chunk)
    if size != descriptor.size_bytes or hasher.hexdigest() != descriptor.digest.hex:
        raise Rejected(Reason.DIGEST_MISMATCH, "a signature blob does not match its digest")
    return b"".join(parts)


def _legacy_material(annotations: Mapping[str, str]) -> Material:
    """Read what the older form keeps in annotations; the chain there is never trusted or read."""
    entry = annotations.get(ANNOTATION_LOG_ENTRY, "")
    pem = annotations.get(ANNOTATION_CERTIFICATE, "")
    timestamp = annotations.get(ANNOTATION_TIMESTAMP, "")
    return Material(
        _certificate(pem) if pem else b"",
        (_log_entry(entry),) if entry else (),
        (_timestamp(timestamp),) if timestamp else (),
    )


def _log_entry(untrusted_annotation: str) -> LogEntry:
    from local_imager.sources.tlog import parse_legacy_entry

    return parse_legacy_entry(untrusted_annotation)


def _timestamp(untrusted_annotation: str) -> bytes:
    what = "timestamp annotation"
    untrusted_data = untrusted_annotation.encode(errors="replace")
    document = parse_object(untrusted_data, what, _TIMESTAMP_BYTES)
    return bytes_field(document, "SignedRFC3161Timestamp", what, _TIMESTAMP_BYTES)


def _certificate(untrusted_pem: str) -> bytes:
    if len(untrusted_pem) > _CERTIFICATE_BYTES:
        raise Rejected(Reason.TOO_LARGE, "the certificate annotation is too large")
    from local_imager.sources.certificate import certificate_from_pem

    return certificate_from_pem(untrusted_pem.encode(errors="replace"))


def _finding(form: Form, where: str, error: SourceError | Rejected) -> Finding:
    """Turn a fault of one signature into its finding; a source that fails as a whole raises on."""
    if isinstance(error, Rejected):
        return Finding(form, where, error.reason, error.message)
    if isinstance(error, NotFound):
        return Finding(form, where, Reason.MISSING_BLOB, printable(error.message, limit=300))
    if isinstance(error, IntegrityError):
        return Finding(form, where, Reason.DIGEST_MISMATCH, printable(error.message, limit=300))
    if error.code == "malformed":
        return Finding(form, where, Reason.MALFORMED, printable(error.message, limit=300))
    raise error
