"""What need not travel because the far side has it, and what travels as a difference.

Blobs that the far side's inventory lists are left out. A large blob that resembles one of those
travels as a delta against it where the exact bytes come back (see ``deltas.making``). Everything
else travels whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from local_imager.deliver.bundle.deltas.kin import candidates
from local_imager.deliver.bundle.deltas.making import Delta, DeltaMaker
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Blob, Item, Rebuild
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest

# Smaller ones cost more care than they save.
LEAST_BYTES: Final = 1024 * 1024
_MAX_PURPOSE: Final = 1024


@dataclass(frozen=True, slots=True)
class DeltaPlan:
    """The blobs of a bundle for one far side, in order.

    ``left_out_bytes`` is what the far side has; ``whole`` says why a large blob travels whole.
    """

    blobs: tuple[Blob, ...]
    left_out_bytes: int
    deltas: tuple[Delta, ...] = ()
    whole: tuple[tuple[Digest, str], ...] = ()


def leave_out(blobs: Sequence[Blob], inventory: Inventory) -> tuple[Blob, ...]:
    """Return the blobs with those not carried that the far side has.

    Documents always travel: the gate, checks and people read them where no store is.
    """
    return tuple(
        replace(blob, carried=False)
        if blob.carried and not blob.document and inventory.holds(blob.digest)
        else blob
        for blob in blobs
    )


def plan_delta(
    blobs: Sequence[Blob],
    items: Sequence[Item],
    layout: Layout,
    inventory: Inventory,
    sink: EventSink = NULL_SINK,
) -> DeltaPlan:
    """Leave out what the far side has, and make deltas of large blobs where that saves a third.

    A payload becomes a blob of the layout without a name, and stands right behind the blob that it
    rebuilds. Each blob was rebuilt once to see that its bytes come back. Raises
    :class:`StoreError`; a blob that cannot be read is not judged here, it stays as it is.
    """
    remaining = leave_out(blobs, inventory)
    large = [b for b in remaining if b.carried and not b.document and b.size_bytes > LEAST_BYTES]
    bases = candidates(large, items, layout, inventory)
    maker = DeltaMaker(layout, sink)
    made: list[Blob] = []
    deltas: list[Delta] = []
    whole: list[tuple[Digest, str]] = []
    for blob in remaining:
        result = maker.make(blob, bases[blob.digest]) if blob.digest in bases else None
        if not isinstance(result, Delta):
            made.append(blob)
            whole += [(blob.digest, result)] if result is not None else []
            continue
        deltas.append(result)
        way = Rebuild(result.base, result.payload, result.method)
        purpose = f"delta of {blob.purpose}"[:_MAX_PURPOSE]
        made.append(replace(blob, carried=False, rebuild=way))
        made.append(Blob(result.payload, result.payload_bytes, purpose))
    return DeltaPlan(tuple(made), _left_out_bytes(blobs, remaining), tuple(deltas), tuple(whole))


def _left_out_bytes(before: Sequence[Blob], after: Sequence[Blob]) -> int:
    return sum(
        old.size_bytes for old, new in zip(before, after, strict=True) if old.carried != new.carried
    )
