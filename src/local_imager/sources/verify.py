"""The gate: an image becomes a :class:`VerifiedImage` here, or nothing of it is used.

Obligations, in order; each must hold, and a refusal names the one that did not:

1. A rule of the policy covers the image's name (``trust.TrustPolicy.groups_for``).
2. The bytes of the image's manifest or index match the digest that was asked for
   (``_read_subject``); a tag plays no part from here on.
3. Signatures are looked for as bundle referrers, then in the older cosign form
   (``candidates.Finder``); counts and sizes have ceilings.
4. Every manifest and blob of a signature matches the digest and size that name it
   (``candidates``), and parses strictly: no duplicate or unknown keys, no other version.
5. The signature was made by the policy's key (or the certificate's) over exactly the signed bytes
   (``signers``, ``keys``).
6. What is signed speaks of this very digest, and is an image signature, not an attestation of
   another type (``statement``).
7. Where the policy wants a transparency log entry: it is of a trusted log, about this signature,
   and promise, proof and checkpoint verify (``tlog``, ``logbody``, ``checkpoint``).
8. For keyless rules: certificate chain, time, SCT, identity and issuer (``keyless`` has its own
   list).
9. Each tightening layer that covers the name accepts as well.

A verified index covers the manifests that it names by digest. A child's own signature says
nothing about the index, so it is never looked at when the index was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from local_imager.errors import IntegrityError, VerificationRefused
from local_imager.events import NULL_SINK, EventSink, Message
from local_imager.oci.model import Descriptor, Digest, Reference, parse_manifest
from local_imager.oci.source import ImageSource
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.candidates import Candidate, Finder, Finding
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.signers import judge
from local_imager.sources.statement import PREDICATE_IMAGE_SIGNATURE
from local_imager.sources.trust import AcceptUnverified, TrustPolicy, TrustRule


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image that passed the gate; only this module constructs one.

    ``digest`` is what is signed (an index, or a single manifest). ``policy`` names the rule that
    accepted, ``signer`` the key id or identity. ``evidence`` is JSON-able. ``unverified`` is True
    when a rule said to accept the image without any signature.
    """

    reference: Reference
    digest: Digest
    policy: str
    signer: str
    evidence: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    unverified: bool = False


@dataclass(slots=True)
class _Signatures:
    """The image's signatures, read once and only as far as needed, for any number of rules."""

    untried: Iterator[Candidate | Finding]
    seen: list[Candidate | Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[Candidate | Finding]:
        yield from self.seen
        for item in self.untried:
            self.seen.append(item)
            yield item


def verify_image(
    source: ImageSource,
    reference: Reference,
    descriptor: Descriptor,
    policy: TrustPolicy,
    *,
    sink: EventSink = NULL_SINK,
    predicate_type: str = PREDICATE_IMAGE_SIGNATURE,
) -> VerifiedImage:
    """Check that the image may be used, and say by whom it is signed.

    ``reference`` carries the image's own name, which the policy is about; ``descriptor`` is what
    its tag was resolved to. Raises :class:`VerificationRefused` with what was found and tried,
    :class:`IntegrityError` when the image's own bytes are not what the digest says, and whatever
    the source raises when it cannot be read at all.
    """
    groups = policy.groups_for(reference.name)
    _read_subject(source, reference, descriptor)
    finder = Finder(source, reference, descriptor.digest, predicate_type)
    signatures = _Signatures(finder.found())
    accepted = [_accept(group, signatures, reference, descriptor) for group in groups]
    rule, acceptance = accepted[0]
    unverified = acceptance is None
    if unverified:
        sink.emit(
            Message(
                f"WARNING: {reference} is used WITHOUT VERIFICATION, as {rule.name} in "
                f"{rule.source or 'the settings'} says",
                level="warning",
            )
        )
    return VerifiedImage(
        reference,
        descriptor.digest,
        rule.name,
        acceptance.signer if acceptance else "nobody (accepted without verification)",
        _evidence(reference, descriptor.digest, accepted),
        unverified,
    )


def _read_subject(source: ImageSource, reference: Reference, descriptor: Descriptor) -> None:
    raw = source.manifest(reference, descriptor.digest)
    if Digest.of(raw.untrusted_data) != descriptor.digest:
        raise IntegrityError(
            f"the manifest of {reference} does not match its digest {descriptor.digest}",
            hint=f"the copy in {source.location} is damaged or was changed: fetch it again",
        )
    parse_manifest(raw.untrusted_data, raw.media_type, str(reference))


Judgement = tuple[TrustRule, Acceptance | None]


def _accept(
    group: tuple[TrustRule, ...],
    signatures: _Signatures,
    reference: Reference,
    descriptor: Descriptor,
) -> Judgement:
    """Return the first rule that accepts; None as acceptance means "without verification"."""
    findings: list[Finding] = []
    for rule in group:
        signer = rule.signer
        if isinstance(signer, AcceptUnverified):
            continue
        for item in signatures:
            if isinstance(item, Finding):
                findings.append(item)
                continue
            try:
                return rule, judge(item, signer)
            except Rejected as error:
                findings.append(Finding(item.form, item.where, error.reason, error.message))
    for rule in group:
        if isinstance(rule.signer, AcceptUnverified):
            return rule, None
    raise _refusal(group, findings, reference, descriptor)


def _refusal(
    group: tuple[TrustRule, ...],
    findings: list[Finding],
    reference: Reference,
    descriptor: Descriptor,
) -> VerificationRefused:
    wanted = " or ".join(f"{rule.name} wants {rule.signer.describe()}" for rule in group)
    tried = tuple(dict.fromkeys(str(finding) for finding in findings))
    if findings:
        # Enum order is the order of the checks: name the fault of the signature that got furthest.
        order = list(Reason)
        reason = max((f.reason for f in findings if f.reason), key=order.index)
        detail = next(f.detail for f in findings if f.reason is reason)
        story = f"{len(tried)} looked at; {detail}"
    else:
        reason, story = Reason.NO_SIGNATURE, "it carries no signature at all"
    hint = "check the image's origin; if it is right, the policy has to name its signer"
    return VerificationRefused(
        f"{reference} ({descriptor.digest}) is refused: {story}. Policy: {wanted}",
        hint=hint,
        code=reason.code,
        image=str(reference),
        tried=tried,
    )


def _evidence(
    reference: Reference, digest: Digest, accepted: list[Judgement]
) -> Mapping[str, object]:
    rules = []
    for rule, acceptance in accepted:
        shown = acceptance.as_dict() if acceptance else {"unverified": True}
        rules.append({"rule": rule.name, "wants": rule.signer.describe(), **shown})
    return MappingProxyType(
        {
            "image": str(reference),
            "digest": str(digest),
            "accepted_by": rules,
            "verified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
