"""What is recorded of a signature that was accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from local_imager.sources.tlog import LogEvidence

CLOCK_TIMESTAMP: Final = "RFC 3161 timestamp authority"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Who signed, and what was shown.

    ``trusted_root`` is the digest of the file leaned on, empty when none was needed;
    ``signed_at`` the earliest proven time, None for a key without log entry; ``clock`` says whose
    clock that was.
    """

    signer: str
    checked: tuple[str, ...]
    log: LogEvidence | None = None
    trusted_root: str = ""
    signed_at: datetime | None = None
    clock: str = ""

    def as_dict(self) -> Mapping[str, object]:
        """Return the JSON object for the evidence document."""
        document: dict[str, object] = {"signer": self.signer, "checked": list(self.checked)}
        if self.log is not None:
            document["log_entry"] = self.log.as_dict()
        if self.trusted_root:
            document["trusted_root"] = self.trusted_root
        if self.signed_at is not None:
            document |= {"signed_at": self.signed_at.isoformat(), "clock": self.clock}
        return document


def earliest(
    stamped: Sequence[datetime], logged: Sequence[LogEvidence]
) -> tuple[datetime | None, str]:
    """Return the earliest proven time and whose clock it is; None and "" when none is proven."""
    times = [(moment, CLOCK_TIMESTAMP) for moment in stamped]
    for evidence in logged:
        if evidence.integrated_time is not None:
            times.append((evidence.integrated_time, f"transparency log {evidence.host}"))
    return min(times, default=(None, ""))
