"""What the far side will have of a bundle: what came intact, what it had, what it can rebuild."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.bundle.far.stock import Stock
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Bundle
from local_imager.oci.model import Digest

_DAMAGED: Final = ("damaged in the bundle", "copy the bundle once more, or make it again")


@dataclass(frozen=True, slots=True)
class Shortage:
    """Some blobs that will not be there, for one reason; ``remedy`` says what helps."""

    reason: str
    remedy: str
    blobs: int
    size_bytes: int


class FarSide(Stock):
    """The stock of a far side that gets this bundle: empty before, or with what ``have`` lists.

    :meth:`saw` tells it what came intact; ``given`` are the numbers of the parts that were read.
    """

    def __init__(self, bundle: Bundle, have: Inventory | None, given: Collection[int]) -> None:
        super().__init__(bundle, None)
        self._have, self._given = have, given

    def has(self, digest: Digest) -> bool:
        """Return whether a blob comes intact, or is there with the size that the bundle tells."""
        if super().has(digest):
            return True
        held = self._have.blobs.get(digest) if self._have is not None else None
        blob = self.bundle.by_digest.get(digest)
        return held is not None and (blob is None or blob.size_bytes == held)

    def shortages(self, wanted: Iterable[Digest]) -> tuple[Shortage, ...]:
        """Return why blobs will not be there, one reason once; nothing when all of them will."""
        found: dict[tuple[str, str], list[int]] = {}
        for digest in dict.fromkeys(wanted):
            if not self.can_have(digest):
                sizes = found.setdefault(self._why(digest), [])
                sizes.append(self.bundle.by_digest[digest].size_bytes)
        return tuple(Shortage(*why, len(sizes), sum(sizes)) for why, sizes in found.items())

    def _why(self, digest: Digest) -> tuple[str, str]:
        blob = self.bundle.by_digest[digest]
        if blob.rebuild is not None and not self.has(blob.rebuild.base):
            return self._not_on_the_far_side("to be rebuilt from a blob expected on the far side")
        if blob.rebuild is None and not blob.carried:
            return self._not_on_the_far_side("left out of the bundle, since expected there")
        awaited = [number for number in self.awaited_parts(digest) if number not in self._given]
        if not awaited:
            return _DAMAGED
        numbers = f"part{'' if len(awaited) == 1 else 's'} {', '.join(map(str, awaited))}"
        return f"in {numbers} of {len(self.bundle.parts)}, not given here", f"give {numbers} too"

    def _not_on_the_far_side(self, what: str) -> tuple[str, str]:
        if self._have is None:
            return (
                f"{what} (the bundle is a delta)",
                "say what is there with --have FILE (local-imager store inventory makes it on the "
                "far side), or make the bundle without --since",
            )
        return (
            f"{what}, and the inventory does not list it",
            "make the bundle with --since and the inventory of this far side",
        )
