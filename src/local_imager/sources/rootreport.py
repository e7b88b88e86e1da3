"""What a trusted root holds, how old it is, and what it can no longer prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal

from local_imager.events import printable
from local_imager.sources.certificate import load_certificate
from local_imager.sources.reasons import Rejected
from local_imager.sources.trusted_root import Authority, Log, Period, TrustedRoot

State = Literal["valid", "expired", "not yet valid"]
# What is out of reach when no authority of a kind is in its time.
_WITHOUT: Final[Mapping[str, str]] = {
    "certificate authority": "no keyless signature made now can be accepted",
    "certificate transparency log": "no certificate issued now has a timestamp that counts",
    "transparency log": "no log entry made now counts",
    "timestamp authority": "no signed timestamp made now counts",
}


def authorities(root: TrustedRoot, now: datetime) -> list[dict[str, Any]]:
    """Return every authority and log of the root with its kind, name, period and state."""
    return [
        {
            "kind": kind,
            "name": printable(name, limit=200),
            "valid_from": period.start.isoformat(),
            "valid_to": period.end.isoformat() if period.end else None,
            "state": _state(period, now),
        }
        for kind, name, period in _members(root)
    ]


def newest_start(root: TrustedRoot) -> datetime | None:
    """Return when the youngest authority began: the root is at least as old as that."""
    return max((period.start for _, _, period in _members(root)), default=None)


def cannot_prove(root: TrustedRoot, now: datetime) -> list[str]:
    """Say in sentences what the root cannot show any more, or not at all."""
    found = []
    members = list(_members(root))
    for kind, lost in _WITHOUT.items():
        same = [period for other, _, period in members if other == kind]
        if not same:
            found.append(f"it names no {kind}: what needs one is refused")
        elif not any(_state(period, now) == "valid" for period in same):
            found.append(f"no {kind} is in its time of trust: {lost}")
    for kind, name, period in members:
        if period.end is not None and period.end < now:
            what = f"{kind} {printable(name, limit=200)}"
            found.append(f"{what} proves nothing that is later than {period.end:%Y-%m-%d}")
    return found


def _members(root: TrustedRoot) -> Iterator[tuple[str, str, Period]]:
    for authority in root.certificate_authorities:
        yield "certificate authority", *_named(authority)
    for log in root.ct_logs:
        yield "certificate transparency log", _log_name(log), log.period
    for log in root.logs:
        yield "transparency log", _log_name(log), log.period
    for authority in root.timestamp_authorities:
        yield "timestamp authority", *_named(authority)


def _log_name(log: Log) -> str:
    return f"{log.host or 'unnamed'} ({log.log_id.hex()[:16]})"


def _named(authority: Authority) -> tuple[str, Period]:
    """Return the authority's name, and its period cut to what its certificates allow."""
    period = authority.period
    try:
        chain = [load_certificate(der) for der in authority.chain]
    except Rejected:
        return "unreadable certificate", period
    if not chain:
        return "without certificate", period
    end = min(one.not_valid_after_utc for one in chain)
    start = max(period.start, *(one.not_valid_before_utc for one in chain))
    name = chain[0].subject.rfc4514_string() or chain[-1].subject.rfc4514_string()
    return name, Period(start, min(end, period.end) if period.end else end)


def _state(period: Period, now: datetime) -> State:
    if now < period.start:
        return "not yet valid"
    return "valid" if period.holds(now) else "expired"
