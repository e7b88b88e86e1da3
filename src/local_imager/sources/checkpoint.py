"""A log's checkpoint: a signed note that states the size and root hash of its tree.

Formats: C2SP ``signed-note`` and ``tlog-checkpoint``. Only the log's own signature counts;
witness signatures are passed over.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from local_imager.sources.reasons import Reason, Rejected

if TYPE_CHECKING:
    from local_imager.sources.trusted_root import Log

# One log signature and some witnesses; each is tried only when its key hint fits.
MAX_NOTE_SIGNATURES: Final = 32
_KEY_HINT_BYTES: Final = 4


def _invalid(problem: str) -> Rejected:
    return Rejected(Reason.TLOG_INVALID, f"the log's checkpoint {problem}")


def verify_checkpoint(untrusted_note: str, log: Log, tree_size: int, root_hash: bytes) -> None:
    """Check that the log signed this tree size and root hash; raises :class:`Rejected`."""
    body, separator, signatures = untrusted_note.partition("\n\n")
    if not separator:
        raise _invalid("has no signature")
    body += "\n"
    lines = body.split("\n")
    # Origin, size, root hash, optional extension lines, and what follows the last newline.
    if len(lines) < 4 or lines[1] != str(tree_size):
        raise _invalid("states another tree size than the inclusion proof")
    if _decoded(lines[2]) != root_hash:
        raise _invalid("states another root hash than the inclusion proof")
    # "host - tree id" in Rekor v1, the host name in v2: a note of another log is not this log's.
    if log.host and lines[0].split(" - ")[0] != log.host:
        raise _invalid("is of another log")
    if not _is_signed(body, signatures, log):
        raise _invalid("is not signed by the log")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise _invalid("is malformed") from error


def _is_signed(body: str, signatures: str, log: Log) -> bool:
    try:
        note = body.encode()
    except UnicodeEncodeError as error:
        raise _invalid("is not UTF-8") from error
    for line in signatures.split("\n")[:MAX_NOTE_SIGNATURES]:
        if not line:
            continue
        dash, _, rest = line.partition(" ")
        _, _, encoded = rest.rpartition(" ")
        if dash != "\N{EM DASH}" or not encoded:
            raise _invalid("has a malformed signature line")
        blob = _decoded(encoded)
        hint, signature = blob[:_KEY_HINT_BYTES], blob[_KEY_HINT_BYTES:]
        if hint == log.log_id[:_KEY_HINT_BYTES] and log.key.verifies(signature, note):
            return True
    return False
