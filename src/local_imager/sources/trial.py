"""Trying an image's signatures against the rules that cover it, and what came of each.

A group of rules (one policy layer) is satisfied when as many *distinct* signers as its threshold
says were accepted by any of its rules. Each signature gets one answer: accepted, or the reason of
the check that it failed last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from local_imager.errors import VerificationRefused
from local_imager.oci.model import Digest, Reference
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.candidates import Candidate, Finding, Form
from local_imager.sources.reasons import Reason, Rejected
from local_imager.sources.signers import judge
from local_imager.sources.trust import AcceptUnverified, TrustRule

# The order of the table is the order of the checks: a later one was reached by passing the others.
_ORDER = list(Reason)


@dataclass(slots=True)
class Signatures:
    """The image's signatures, read once and only as far as needed, for any number of rules."""

    untried: Iterator[Candidate | Finding]
    seen: list[Candidate | Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[Candidate | Finding]:
        yield from self.seen
        for item in self.untried:
            self.seen.append(item)
            yield item


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one group of rules says of one signature: an acceptance, or the one reason against."""

    form: Form
    where: str
    rule: TrustRule | None = None
    acceptance: Acceptance | None = None
    reason: Reason | None = None
    detail: str = ""

    def __str__(self) -> str:
        verdict = f"{self.reason.code}: {self.detail}" if self.reason else "accepted"
        return f"{self.form} ({self.where}): {verdict}"

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for reports."""
        document: dict[str, object] = {
            "form": self.form,
            "where": self.where,
            "accepted": self.acceptance is not None,
            "code": self.reason.code if self.reason else "accepted",
            "detail": self.detail,
        }
        if self.acceptance is not None and self.rule is not None:
            document |= {"rule": self.rule.name, **self.acceptance.as_dict()}
        return document


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one group of rules says of the image, and of each signature that was looked at."""

    group: tuple[TrustRule, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def threshold(self) -> int:
        """How many distinct signers are wanted: the largest number that a rule names."""
        return max((rule.threshold for rule in self.group), default=1)

    @property
    def accepted(self) -> tuple[tuple[TrustRule, Acceptance], ...]:
        """The first acceptance of each distinct signer, in the order they were found."""
        found: dict[str, tuple[TrustRule, Acceptance]] = {}
        for verdict in self.verdicts:
            if verdict.rule is not None and verdict.acceptance is not None:
                found.setdefault(verdict.acceptance.signer, (verdict.rule, verdict.acceptance))
        return tuple(found.values())

    @property
    def signed(self) -> bool:
        """Whether enough distinct signers were accepted."""
        return bool(self.group) and len(self.accepted) >= self.threshold

    @property
    def waived(self) -> TrustRule | None:
        """The rule that accepts the image without a signature, if it takes that."""
        waiving = (rule for rule in self.group if isinstance(rule.signer, AcceptUnverified))
        return None if self.signed else next(waiving, None)

    @property
    def satisfied(self) -> bool:
        """Whether the group lets the image pass."""
        return self.signed or self.waived is not None

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for reports."""
        return {
            "rules": [
                {"rule": rule.name, "source": rule.source, "wants": rule.signer.describe()}
                for rule in self.group
            ],
            "threshold": self.threshold,
            "satisfied": self.satisfied,
            "signers": [acceptance.signer for _, acceptance in self.accepted],
        }


def try_group(group: tuple[TrustRule, ...], signatures: Signatures, *, exhaustive: bool) -> Outcome:
    """Try signatures until the group has what it wants; ``exhaustive`` goes on to the last one.

    Raises :class:`SettingsError` for a trusted root that cannot be read, and what the source
    raises when it cannot be read as a whole.
    """
    outcome = Outcome(group, ())
    if not exhaustive and all(isinstance(rule.signer, AcceptUnverified) for rule in group):
        return outcome
    for item in signatures:
        outcome = Outcome(group, (*outcome.verdicts, verdict_on(item, group)))
        if outcome.signed and not exhaustive:
            break
    return outcome


def verdict_on(item: Candidate | Finding, group: tuple[TrustRule, ...]) -> Verdict:
    """Judge one signature by every rule of a group until one accepts it."""
    if isinstance(item, Finding):
        return Verdict(item.form, item.where, reason=item.reason, detail=item.detail)
    none = "no rule of the policy asks for a signature of this image"
    worst = Verdict(item.form, item.where, reason=Reason.NO_POLICY, detail=none)
    for rule in group:
        if isinstance(rule.signer, AcceptUnverified):
            continue
        try:
            return Verdict(item.form, item.where, rule, judge(item, rule.signer))
        except Rejected as error:
            if worst.reason is None or _ORDER.index(error.reason) >= _ORDER.index(worst.reason):
                worst = Verdict(item.form, item.where, reason=error.reason, detail=error.message)
    return worst


def refusal(outcome: Outcome, reference: Reference, digest: Digest) -> VerificationRefused:
    """Say why the image is refused: the fault of the signature that got furthest."""
    group, accepted = outcome.group, outcome.accepted
    wanted = " or ".join(f"{rule.name} wants {rule.signer.describe()}" for rule in group)
    tried = tuple(dict.fromkeys(str(verdict) for verdict in outcome.verdicts))
    faults = [verdict for verdict in outcome.verdicts if verdict.reason is not None]
    reason = Reason.NO_SIGNATURE
    story = "it carries no signature at all"
    if accepted:
        reason = Reason.THRESHOLD
        story = f"{len(accepted)} of {outcome.threshold} signers that are wanted"
    elif faults:
        reason = max((f.reason for f in faults if f.reason), key=_ORDER.index)
        detail = next(fault.detail for fault in faults if fault.reason is reason)
        story = f"{len(tried)} looked at; {detail}"
    if outcome.threshold > 1:
        wanted = f"{outcome.threshold} signers of: {wanted}"
    return VerificationRefused(
        f"{reference} ({digest}) is refused: {story}. Policy: {wanted}",
        hint="check the image's origin; if it is right, the policy has to name its signer",
        code=reason.code,
        image=str(reference),
        tried=tried,
    )
