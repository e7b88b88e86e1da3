"""What the last ``--verify-reproducible`` of an asset in the store found.

Such a document may have come from elsewhere: it is read with bounds, and one of another form says
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store

ARTIFACT_REPRODUCTION: Final = "application/vnd.local-imager.reproduction.v1+json"
# Equal bytes of such builds are no promise for any other.
ONLY_THERE: Final = ", with temporary files on disk: not shown to repeat in memory"
_MAX_TEXTS: Final = 20


@dataclass(frozen=True, slots=True)
class Reproduced:
    """Whether an asset came out the same when it was last built again, when, and in what.

    ``varied`` names what was other then, ``kept`` what was not, each as a sentence; ``on_disk``
    says that the answer holds for temporary files on that disk only.
    """

    checked_at: str
    equal: bool
    first_offset: int | None
    verdict: str
    varied: Mapping[str, str]
    kept: tuple[str, ...]
    on_disk: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that ``inspect`` and ``store show`` print."""
        return {
            "checked_at": self.checked_at,
            "equal": self.equal,
            "first_offset": self.first_offset,
            "verdict": self.verdict or None,
            "varied": dict(self.varied),
            "kept": list(self.kept),
            "temporary_files_on_disk": self.on_disk,
        }

    def sentences(self) -> list[str]:
        """Return what is told of it, one line each: the answer, what was other, what was not."""
        if self.equal:
            answer = "the same bytes" + (ONLY_THERE if self.on_disk else "")
        else:
            answer = "differs"
            if self.first_offset is not None:
                answer += f" from byte {self.first_offset} on"
            answer += f" ({self.verdict})" if self.verdict else ""
        lines = [f"{self.checked_at or 'at a time that is not known'}: {answer}"]
        if self.varied:
            lines.append(f"varied: {', '.join(self.varied)}")
        return [*lines, *(f"not varied: {text}" for text in self.kept)]


def last_reproduction(store: Store, asset: StoredAsset) -> Reproduced | None:
    """Return the latest answer kept beside an asset, None where there is none."""
    documents = store.read_referrers(asset, ARTIFACT_REPRODUCTION)
    answers = [one for one in map(_read, documents) if one is not None]
    # Times are RFC 3339 in UTC with whole seconds: as texts they stand in the order of time.
    return max(reversed(answers), key=lambda one: one.checked_at, default=None)


def _read(data: bytes) -> Reproduced | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("equal"), bool):
        return None
    varied, kept = told.get("varied"), told.get("kept")
    offset = told.get("first_offset")
    return Reproduced(
        _text(told.get("checked_at")),
        told["equal"],
        offset if isinstance(offset, int) and 0 <= offset < 1 << 63 else None,
        _text(told.get("verdict")),
        {
            _text(name): _text(value)
            for name, value in list(varied.items() if isinstance(varied, dict) else ())[:_MAX_TEXTS]
        },
        tuple(_text(one) for one in (kept if isinstance(kept, list) else ())[:_MAX_TEXTS]),
        told.get("temporary_files_on_disk") is True,
    )


def _text(value: object) -> str:
    return printable(value, limit=300) if isinstance(value, str) else ""
