"""Trust policy: whose signature is wanted on which image.

A policy is made of rules, each a name pattern and a signer. For an image the rules of the most
specific matching pattern count, and as many distinct signers as they want have to be accepted;
when nothing matches, the image is refused. Tightening layers (project file, environment) are
further policies that must accept *as well*, so by construction they can only narrow what the base
policy allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from local_imager.errors import VerificationRefused
from local_imager.sources.keys import PublicKey
from local_imager.sources.patterns import NamePattern
from local_imager.sources.reasons import Reason

OFFICIAL_ISSUER: Final = "https://accounts.google.com"
# The official factory's own policy (image-factory, cmd/image-factory/cmd/options.go).
OFFICIAL_IDENTITY: Final = (
    r"(@siderolabs\.com$|^releasemgr-svc@talos-production\.iam\.gserviceaccount\.com$)"
)


class Origin(Enum):
    """Where a rule was written, and whether that place may loosen trust."""

    DEFAULT = "default"
    USER_FILE = "user-file"
    FLAGS = "flags"
    PROJECT_FILE = "project-file"

    @property
    def may_loosen(self) -> bool:
        """Only what the user wrote or named themselves (``--policy``) may; a checkout may not."""
        return self in (Origin.USER_FILE, Origin.FLAGS)


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A public key must have signed; with ``require_tlog`` a log must show it too."""

    key: PublicKey
    require_tlog: bool = False
    trusted_root: Path | None = None

    def describe(self) -> str:
        """Say in words what is wanted."""
        log = " with a transparency log entry" if self.require_tlog else ""
        short = self.key.key_id[:19]
        return f"a signature of the {self.key.algorithm} key {short}…{log}"


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """An identity, vouched for by an issuer, must have signed (Fulcio certificate).

    Exactly one of ``issuer``/``issuer_regexp`` and one of ``identity``/``identity_regexp`` is set;
    patterns are Go regular expressions and a search, so they match anywhere unless anchored.
    """

    issuer: str = ""
    issuer_regexp: str = ""
    identity: str = ""
    identity_regexp: str = ""
    require_tlog: bool = True
    require_sct: bool = True
    require_signed_timestamp: bool = False
    trusted_root: Path | None = None

    def describe(self) -> str:
        """Say in words what is wanted."""
        identity = self.identity or f"/{self.identity_regexp}/"
        return f"a keyless signature of {identity} from {self.issuer or self.issuer_regexp}"


@dataclass(frozen=True, slots=True)
class AcceptUnverified:
    """DANGER: the image is used without any check of who made it.

    Written out per pattern in the user's own file or ``--policy``; warned about on each use and
    recorded with everything that is built from such an image.
    """

    def describe(self) -> str:
        """Say in words what is wanted."""
        return "NO signature (accept_unverified)"


Signer = KeySigner | KeylessSigner | AcceptUnverified
Rollback = Literal["warn", "refuse"]


@dataclass(frozen=True, slots=True)
class TrustRule:
    """One pattern and the signer it asks for; ``source`` is the file that says so.

    ``threshold``: so many distinct signers of the rules with this pattern must have signed (the
    largest number among them counts). ``rollback`` says what an older log entry than the one
    accepted before does.
    """

    pattern: NamePattern
    signer: Signer
    origin: Origin
    source: str = ""
    threshold: int = 1
    rollback: Rollback = "warn"

    @property
    def name(self) -> str:
        """Short name for messages and evidence: the pattern and where it was written."""
        return f"{self.pattern.text} ({self.origin.value})"


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Rules, tightening layers, and sentences about what looks wrong in them (``warnings``)."""

    rules: tuple[TrustRule, ...]
    layers: tuple[tuple[TrustRule, ...], ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def groups_for(self, name: str) -> tuple[tuple[TrustRule, ...], ...]:
        """Return the groups of rules for ``registry/repository``: each has to be satisfied.

        The first group is the base policy's; raises :class:`VerificationRefused` (no-policy)
        when no base rule matches.
        """
        base = _most_specific(self.rules, name)
        if not base:
            raise VerificationRefused(
                f"no trust policy covers {name}, so nothing of it is used",
                hint="add a [[trust]] entry with a pattern, and a key or an identity, for it",
                code=Reason.NO_POLICY.code,
                image=name,
            )
        narrowed = (_most_specific(layer, name) for layer in self.layers)
        return (base, *(group for group in narrowed if group))

    def bundle_groups(self) -> tuple[tuple[TrustRule, ...], ...]:
        """Return the groups of rules for bundles: each has to be satisfied, as for an image.

        The first group is the base policy's; it is empty where that says nothing of bundles, and
        then nobody vouches for one: a layer (a project's file) asks, and grants nothing.
        """
        base, *layers = (_for_bundles(rules) for rules in (self.rules, *self.layers))
        return (base, *(group for group in layers if group))

    def in_order(self) -> tuple[TrustRule, ...]:
        """Return the base rules as they count: the most specific pattern first."""
        return tuple(sorted(self.rules, key=lambda rule: rule.pattern.specificity, reverse=True))


def _most_specific(rules: tuple[TrustRule, ...], name: str) -> tuple[TrustRule, ...]:
    matching = [rule for rule in rules if rule.pattern.matches(name)]
    best = max((rule.pattern.specificity for rule in matching), default=None)
    return tuple(rule for rule in matching if rule.pattern.specificity == best)


def _for_bundles(rules: tuple[TrustRule, ...]) -> tuple[TrustRule, ...]:
    return tuple(rule for rule in rules if rule.pattern.for_bundles)


def default_policy() -> TrustPolicy:
    """Return the shipped policy: what the official factory demands of the official images."""
    signer = KeylessSigner(issuer=OFFICIAL_ISSUER, identity_regexp=OFFICIAL_IDENTITY)
    pattern = NamePattern.parse("ghcr.io/siderolabs/**")
    return TrustPolicy((TrustRule(pattern, signer, Origin.DEFAULT),))


def override(base: TrustPolicy, extra: TrustPolicy) -> TrustPolicy:
    """Put the user's own rules over a base: an equal pattern replaces, others are added."""
    replaced = {rule.pattern for rule in extra.rules}
    kept = tuple(rule for rule in base.rules if rule.pattern not in replaced)
    return TrustPolicy(
        (*extra.rules, *kept),
        (*base.layers, *extra.layers),
        (*base.warnings, *extra.warnings),
    )


def tighten(base: TrustPolicy, extra: TrustPolicy) -> TrustPolicy:
    """Add a layer that must accept as well wherever it matches; it can never accept for the base.

    For rules of a project's file and of the environment, which a hostile checkout may hold.
    """
    strict = tuple(rule for rule in extra.rules if not isinstance(rule.signer, AcceptUnverified))
    if not strict:
        return base
    return replace(base, layers=(*base.layers, strict), warnings=(*base.warnings, *extra.warnings))
