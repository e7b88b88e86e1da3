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
9. As many distinct signers as the rules' threshold accept (``trial``), and each tightening layer
   that covers the name accepts as well.
10. The log entry is not older than the newest one accepted before for this name and tag
   (``memory``; a warning, or a refusal where the rules say so).

A verified index covers the manifests that it names by digest. A child's own signature says
nothing about the index, so it is never looked at when the index was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from local_imager.errors import IntegrityError, StoreError, VerificationRefused
from local_imager.events import NULL_SINK, EventSink, Message
from local_imager.oci.model import Descriptor, Digest, Reference, parse_manifest
from local_imager.oci.source import ImageSource
from local_imager.sources.candidates import Finder
from local_imager.sources.memory import LogMemory, Recollection
from local_imager.sources.reasons import Reason
from local_imager.sources.statement import PREDICATE_IMAGE_SIGNATURE
from local_imager.sources.trial import Outcome, Signatures, Verdict, refusal, try_group, verdict_on
from local_imager.sources.trust import TrustPolicy


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


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was found out about an image: exactly one of ``image`` and ``refusal`` is set.

    ``outcomes`` are those of the policy's groups (the base first); empty when no rule covers the
    name, and then ``unasked`` lists the signatures that nobody asked for.
    """

    image: VerifiedImage | None
    refusal: VerificationRefused | None
    outcomes: tuple[Outcome, ...] = ()
    unasked: tuple[Verdict, ...] = ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One answer per signature: that of a group that accepted it, else the base policy's."""
        if not self.outcomes:
            return self.unasked
        columns = zip(*(outcome.verdicts for outcome in self.outcomes), strict=False)
        return tuple(
            next((one for one in answers if one.acceptance is not None), answers[0])
            for answers in columns
        )


def verify_image(
    source: ImageSource,
    reference: Reference,
    descriptor: Descriptor,
    policy: TrustPolicy,
    *,
    sink: EventSink = NULL_SINK,
    predicate_type: str = PREDICATE_IMAGE_SIGNATURE,
    memory: LogMemory | None = None,
) -> VerifiedImage:
    """Check that the image may be used, and say by whom it is signed.

    ``reference`` carries the image's own name, which the policy is about; ``descriptor`` is what
    its tag was resolved to; ``memory`` remembers what was accepted before. Raises
    :class:`VerificationRefused` with what was found and tried,
    :class:`IntegrityError` when the image's own bytes are not what the digest says, and whatever
    the source raises when it cannot be read at all.
    """
    groups = policy.groups_for(reference.name)
    _read_subject(source, reference, descriptor)
    signatures = Signatures(Finder(source, reference, descriptor.digest, predicate_type).found())
    outcomes = []
    for group in groups:
        outcomes.append(try_group(group, signatures, exhaustive=False))
        if not outcomes[-1].satisfied:
            raise refusal(outcomes[-1], reference, descriptor.digest)
    return _accepted(reference, descriptor.digest, outcomes, sink, memory)


def examine_image(
    source: ImageSource,
    reference: Reference,
    descriptor: Descriptor,
    policy: TrustPolicy,
    *,
    sink: EventSink = NULL_SINK,
    predicate_type: str = PREDICATE_IMAGE_SIGNATURE,
    memory: LogMemory | None = None,
) -> Examination:
    """Give the answer of :func:`verify_image` together with that on every single signature.

    A refusal is part of the answer; raises as :func:`verify_image` does for all else.
    """
    _read_subject(source, reference, descriptor)
    signatures = Signatures(Finder(source, reference, descriptor.digest, predicate_type).found())
    try:
        groups = policy.groups_for(reference.name)
    except VerificationRefused as error:
        return Examination(None, error, unasked=tuple(verdict_on(one, ()) for one in signatures))
    outcomes = tuple(try_group(group, signatures, exhaustive=True) for group in groups)
    for outcome in outcomes:
        if not outcome.satisfied:
            return Examination(None, refusal(outcome, reference, descriptor.digest), outcomes)
    try:
        image = _accepted(reference, descriptor.digest, outcomes, sink, memory)
    except VerificationRefused as error:
        return Examination(None, error, outcomes)
    return Examination(image, None, outcomes)


def _accepted(
    reference: Reference,
    digest: Digest,
    outcomes: Sequence[Outcome],
    sink: EventSink,
    memory: LogMemory | None,
) -> VerifiedImage:
    """Make the verified image; every group is satisfied, and the memory has the last word."""
    recollection = _recollect(reference, digest, outcomes, sink, memory)
    base = outcomes[0]
    evidence = _evidence(reference, digest, outcomes, recollection)
    if base.waived is not None:
        sink.emit(
            Message(
                f"WARNING: {reference} is used WITHOUT VERIFICATION, as {base.waived.name} in "
                f"{base.waived.source or 'the settings'} says",
                level="warning",
            )
        )
        signer = "nobody (accepted without verification)"
        return VerifiedImage(reference, digest, base.waived.name, signer, evidence, True)
    names = list(dict.fromkeys(rule.name for rule, _ in base.accepted[: base.threshold]))
    signers = [acceptance.signer for _, acceptance in base.accepted[: base.threshold]]
    return VerifiedImage(reference, digest, ", ".join(names), ", ".join(signers), evidence)


def _recollect(
    reference: Reference,
    digest: Digest,
    outcomes: Sequence[Outcome],
    sink: EventSink,
    memory: LogMemory | None,
) -> Recollection:
    """Compare with what was accepted before, and remember this; refuses where a rule says so."""
    if memory is None:
        return Recollection("not-consulted")
    accepted = [acceptance for one in outcomes for _, acceptance in one.accepted]
    found = memory.compare(reference, digest, accepted)
    if found.state == "older":
        sentence = found.sentence(reference)
        if any(rule.rollback == "refuse" for one in outcomes for rule in one.group):
            raise VerificationRefused(
                sentence,
                hint="ask its publisher; if it was meant, pin the digest or say rollback = "
                '"warn" in the trust entry',
                code=Reason.ROLLBACK.code,
                image=str(reference),
            )
        sink.emit(Message(f"WARNING: {sentence}", level="warning"))
    try:
        memory.remember(reference, digest, accepted)
    except StoreError as error:
        # A store that is only read still verifies; the next run just cannot compare with this one.
        sink.emit(Message(f"the rollback memory was not written: {error.message}", "warning"))
    return found


def _read_subject(source: ImageSource, reference: Reference, descriptor: Descriptor) -> None:
    raw = source.manifest(reference, descriptor.digest)
    if Digest.of(raw.untrusted_data) != descriptor.digest:
        raise IntegrityError(
            f"the manifest of {reference} does not match its digest {descriptor.digest}",
            hint=f"the copy in {source.location} is damaged or was changed: fetch it again",
        )
    parse_manifest(raw.untrusted_data, raw.media_type, str(reference))


def _evidence(
    reference: Reference,
    digest: Digest,
    outcomes: Sequence[Outcome],
    recollection: Recollection,
) -> Mapping[str, object]:
    rules: list[Mapping[str, object]] = []
    for outcome in outcomes:
        if outcome.waived is not None:
            wants = outcome.waived.signer.describe()
            rules.append({"rule": outcome.waived.name, "wants": wants, "unverified": True})
            continue
        for rule, acceptance in outcome.accepted:
            wants = rule.signer.describe()
            rules.append({"rule": rule.name, "wants": wants, **acceptance.as_dict()})
    return MappingProxyType(
        {
            "image": str(reference),
            "digest": str(digest),
            "accepted_by": rules,
            "thresholds": [outcome.threshold for outcome in outcomes],
            "rollback": recollection.as_dict(),
            "verified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
