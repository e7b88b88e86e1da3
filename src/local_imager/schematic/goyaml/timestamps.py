"""Timestamps as Go reads and writes them.

Go's layouts accept more than YAML's: one digit for month, day, hour, minute and second, a comma
before the fraction, offsets of up to 24:60, and any number of spaces between date and time.
"""

from __future__ import annotations

import re

_DATE = r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
_TIME = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2}):(?P<second>[0-9]{1,2})"
_FRACTION = r"(?:[.,](?P<fraction>[0-9]+))?"
_ZONE = r"(?P<zone>Z|(?P<sign>[+-])(?P<zone_hour>[0-9]{2}):(?P<zone_minute>[0-9]{2}))"
_LAYOUTS = (
    re.compile(f"{_DATE}[Tt]{_TIME}{_FRACTION}{_ZONE}"),
    re.compile(f"{_DATE} +{_TIME}{_FRACTION}"),
    re.compile(_DATE),
)
_STARTS_LIKE_DATE = re.compile("[0-9]{4}-")
_NANOSECOND_DIGITS = 9
_MAX_ZONE_HOUR = 24
_MAX_ZONE_MINUTE = 60
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def canonical_timestamp(text: str) -> str | None:
    """Return the text in RFC 3339 form with the zone it has, or None when it is no timestamp."""
    if not _STARTS_LIKE_DATE.match(text):
        return None
    for layout in _LAYOUTS:
        found = layout.fullmatch(text)
        if found:
            return _canonical(found.groupdict())
    return None


def _canonical(parts: dict[str, str | None]) -> str | None:
    year, month, day = (int(parts[name] or 0) for name in ("year", "month", "day"))
    hour, minute, second = (int(parts.get(name) or 0) for name in ("hour", "minute", "second"))
    if not 1 <= month <= 12 or not 1 <= day <= _days_in(year, month):
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    zone = _canonical_zone(parts)
    if zone is None:
        return None
    fraction = (parts.get("fraction") or "")[:_NANOSECOND_DIGITS].rstrip("0")
    clock = f"{hour:02}:{minute:02}:{second:02}" + (f".{fraction}" if fraction else "")
    return f"{year:04}-{month:02}-{day:02}T{clock}{zone}"


def _canonical_zone(parts: dict[str, str | None]) -> str | None:
    if not parts.get("sign"):
        return "Z"
    hours, minutes = int(parts["zone_hour"] or 0), int(parts["zone_minute"] or 0)
    if hours > _MAX_ZONE_HOUR or minutes > _MAX_ZONE_MINUTE:
        return None
    offset = hours * 60 + minutes
    return f"{parts['sign']}{offset // 60:02}:{offset % 60:02}" if offset else "Z"


def _days_in(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _DAYS[month - 1]
