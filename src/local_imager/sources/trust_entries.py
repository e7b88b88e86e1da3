"""Reading trust policies: ``[[trust]]`` entries of settings and policy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from local_imager.errors import SettingsError
from local_imager.events import printable
from local_imager.settings import TrustEntries
from local_imager.sources.expressions import EngineMissing, compiled, is_open
from local_imager.sources.keys import MAX_KEY_FILE_BYTES, load_pem_key
from local_imager.sources.patterns import NamePattern
from local_imager.sources.trust import (
    AcceptUnverified,
    KeylessSigner,
    KeySigner,
    Origin,
    Signer,
    TrustPolicy,
    TrustRule,
    default_policy,
    override,
    tighten,
)

_TEXT_KEYS: Final = frozenset(
    {
        "pattern",
        "key",
        "hash_algorithm",
        "issuer",
        "issuer_regexp",
        "identity",
        "identity_regexp",
        "trusted_root",
        "rollback",
    }
)
_COUNTS: Final = frozenset({"threshold"})
_SWITCHES: Final = frozenset(
    {"accept_unverified", "require_tlog", "require_sct", "require_signed_timestamp"}
)
_KEYLESS_KEYS: Final = frozenset(
    {
        "issuer",
        "issuer_regexp",
        "identity",
        "identity_regexp",
        "require_sct",
        "require_signed_timestamp",
    }
)
_KNOWN: Final = _TEXT_KEYS | _SWITCHES | _COUNTS
_KEY_KEYS: Final = frozenset({"key", "hash_algorithm"})

# No image has more signers than this; a larger number is a slip of the hand.
MAX_THRESHOLD: Final = 16

Entry = Mapping[str, Any]


def policy_from_settings(files: Sequence[TrustEntries]) -> TrustPolicy:
    """Join the shipped policy and the ``[[trust]]`` tables of all settings files, in their order.

    The user's own files override (equal pattern) or add; a project's file only tightens.
    Raises :class:`SettingsError` naming file and entry.
    """
    policy = default_policy()
    for file in files:
        origin = Origin.USER_FILE if file.from_user else Origin.PROJECT_FILE
        extra = policy_from_entries(
            file.entries, base_dir=file.base_dir, origin=origin, source=file.origin
        )
        policy = override(policy, extra) if file.from_user else tighten(policy, extra)
    return policy


def policy_from_entries(
    entries: Sequence[object],
    *,
    base_dir: Path | None = None,
    origin: Origin = Origin.USER_FILE,
    source: str = "",
) -> TrustPolicy:
    """Turn ``[[trust]]`` entries into a policy; raises :class:`SettingsError` naming the entry.

    Paths in entries are relative to ``base_dir``. What loosens trust (``accept_unverified``) is
    refused unless ``origin`` is the user's own file or ``--policy``.
    """
    rules, warnings = [], []
    for number, entry in enumerate(entries, 1):
        where = f"{source or origin.value}: trust entry {number}"
        checked = _checked(entry, where)
        pattern = NamePattern.parse(checked.get("pattern", ""), where)
        if pattern.for_bundles:
            _check_bundle_rule(checked, where)
        signer = _signer(checked, base_dir or Path(), origin, where)
        threshold, rollback = checked.get("threshold", 1), checked.get("rollback", "warn")
        rules.append(TrustRule(pattern, signer, origin, source, threshold, rollback))
        warnings += _warnings(signer, where)
    warnings += _out_of_reach(rules, source or origin.value)
    return TrustPolicy(tuple(rules), warnings=tuple(warnings))


def _checked(entry: object, where: str) -> Entry:
    if not isinstance(entry, Mapping):
        raise SettingsError("a trust entry is not a table", source=where)
    for key, value in entry.items():
        if key not in _KNOWN:
            near = get_close_matches(str(key), _KNOWN, 1)
            raise SettingsError(
                f"unknown key {printable(str(key), limit=60)!r} in a trust entry",
                hint=f"did you mean {near[0]}?" if near else "see the documentation of trust",
                source=where,
            )
        problem = _value_problem(key, value)
        if problem:
            raise SettingsError(f"{key} must be {problem}", source=where)
    if "pattern" not in entry:
        raise SettingsError(
            "a trust entry needs a pattern",
            hint='for example pattern = "ghcr.io/siderolabs/**"',
            source=where,
        )
    return entry


def _check_bundle_rule(entry: Entry, where: str) -> None:
    """Refuse what a bundle could never satisfy, or what would promise a check that there is not."""
    if entry.get("threshold", 1) > 1:
        raise SettingsError(
            "a bundle has one signature, so a threshold above 1 refuses every bundle",
            hint='leave threshold out where pattern = "bundles"; of several entries one has to '
            "accept",
            source=where,
        )
    if "rollback" in entry:
        raise SettingsError(
            "rollback means nothing for bundles: only images have a name and tag to compare under",
            hint='leave rollback out where pattern = "bundles"',
            source=where,
        )


def _value_problem(key: str, value: object) -> str:
    """Say what a key's value must be when it is not; empty when it is."""
    if key in _SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    if key in _COUNTS:
        fits = isinstance(value, int) and not isinstance(value, bool)
        fits = fits and value in range(1, MAX_THRESHOLD + 1)
        return "" if fits else f"a number from 1 to {MAX_THRESHOLD}"
    if key == "rollback":
        return "" if value in ("warn", "refuse") else 'either "warn" or "refuse"'
    return "" if isinstance(value, str) and value else "a text that is not empty"


def _signer(entry: Entry, base_dir: Path, origin: Origin, where: str) -> Signer:
    keyless = _KEYLESS_KEYS & entry.keys()
    by_key = _KEY_KEYS & entry.keys()
    unverified = entry.get("accept_unverified", False)
    if [bool(keyless), bool(by_key), unverified].count(True) != 1:
        raise SettingsError(
            "a trust entry must say one thing: a key, an issuer with an identity, "
            "or accept_unverified = true",
            source=where,
        )
    if unverified:
        return _unverified(entry, origin, where)
    root = base_dir / entry["trusted_root"] if "trusted_root" in entry else None
    return _keyless(entry, root, where) if keyless else _key(entry, base_dir, root, where)


def _unverified(entry: Entry, origin: Origin, where: str) -> AcceptUnverified:
    if not origin.may_loosen:
        raise SettingsError(
            "accept_unverified is not read from a project's file or the environment",
            hint="write it into your own settings file, or into a file for --policy",
            source=where,
        )
    others = entry.keys() - {"pattern", "accept_unverified"}
    if others:
        raise SettingsError(f"{min(others)} means nothing with accept_unverified", source=where)
    return AcceptUnverified()


def _key(entry: Entry, base_dir: Path, root: Path | None, where: str) -> KeySigner:
    if "key" not in entry:
        raise SettingsError("hash_algorithm needs a key", source=where)
    text = entry["key"]
    if "-----BEGIN" in text:
        pem, source = text.encode(), where
    else:
        path = base_dir / text
        source = str(path)
        try:
            with path.open("rb") as file:
                pem = file.read(MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            raise SettingsError(
                f"the trust key cannot be read: {error.strerror}", source=source
            ) from error
    key = load_pem_key(pem, entry.get("hash_algorithm", "sha256"), source)
    return KeySigner(key, entry.get("require_tlog", False), root)


def _keyless(entry: Entry, root: Path | None, where: str) -> KeylessSigner:
    for exact, pattern in (("issuer", "issuer_regexp"), ("identity", "identity_regexp")):
        if (exact in entry) == (pattern in entry):
            raise SettingsError(
                f"a keyless trust entry needs either {exact} or {pattern}", source=where
            )
        if pattern in entry:
            check_expression(entry[pattern], where)
    return KeylessSigner(
        issuer=entry.get("issuer", ""),
        issuer_regexp=entry.get("issuer_regexp", ""),
        identity=entry.get("identity", ""),
        identity_regexp=entry.get("identity_regexp", ""),
        require_tlog=entry.get("require_tlog", True),
        require_sct=entry.get("require_sct", True),
        require_signed_timestamp=entry.get("require_signed_timestamp", False),
        trusted_root=root,
    )


def check_expression(expression: str, where: str) -> None:
    """Refuse a pattern that Go's regular expressions (RE2) do not know.

    Without google-re2 the pattern cannot be used either, so nothing is guessed here.
    """
    try:
        compiled(expression)
    except EngineMissing:
        return
    except ValueError as error:
        raise SettingsError(
            f"{expression[:80]!r} is not a regular expression in Go's syntax", source=where
        ) from error


def _warnings(signer: Signer, where: str) -> list[str]:
    if not isinstance(signer, KeylessSigner):
        return []
    found = []
    for expression in (signer.issuer_regexp, signer.identity_regexp):
        if expression and is_open(expression):
            found.append(
                f"{where}: {expression[:80]!r} is open at both ends: it also accepts every name "
                "that merely contains it; anchor it with ^ and $"
            )
    return found


def _out_of_reach(rules: Sequence[TrustRule], where: str) -> list[str]:
    """Warn of a threshold that the rules of a pattern cannot reach: each names one signer."""
    found = []
    for pattern in dict.fromkeys(rule.pattern for rule in rules):
        group = [rule for rule in rules if rule.pattern == pattern]
        wanted = max(rule.threshold for rule in group)
        exact = {_one_signer(rule.signer) for rule in group}
        if None not in exact and len(exact) < wanted:
            found.append(
                f"{where}: {pattern.text} wants {wanted} signers and names {len(exact)}: "
                "no image can pass"
            )
    return found


def _one_signer(signer: Signer) -> str | None:
    """Name the only signer that a rule can accept; None when it may accept several."""
    if isinstance(signer, KeySigner):
        return signer.key.key_id
    if isinstance(signer, KeylessSigner) and signer.identity and signer.issuer:
        return f"{signer.identity} ({signer.issuer})"
    return None
