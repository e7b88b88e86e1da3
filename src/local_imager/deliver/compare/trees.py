"""Walks two trees of parts side by side and names every place where they differ.

A place is named at the deepest level that explains it: what holds it differs as a consequence and
is not named. Nothing is left out by being unknown: bytes that differ without a part of theirs that
differs are a difference of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from local_imager.deliver.compare.align import (
    NUMBERED,
    WRAPPERS,
    Spelling,
    orders_of,
    pairs,
    same_order,
)
from local_imager.deliver.compare.derived import (
    PACKING,
    TOLD_OTHERWISE,
    derivation,
    is_packing,
    of_its_bytes,
)
from local_imager.deliver.compare.factwords import (
    ENTRY_FACTS,
    PACKED_VOLUMES,
    WHOLLY_TOLD,
    fact_words,
    hidden_properties,
    noun,
    shown,
    signs_alike,
)
from local_imager.deliver.compare.finding import SPELLING, Class, Finding, join
from local_imager.deliver.compare.noise import CONTENT, REST, Place, kinds_of, noise_of
from local_imager.deliver.compare.signed import (
    same_but_members,
    same_but_restated,
    same_but_signed_values,
)
from local_imager.deliver.compare.spot import (
    Spot,
    beside,
    holder_of,
    is_packed,
    is_padded,
    is_restated,
    only_padded,
    parent_of,
    shows_file,
    siblings,
)
from local_imager.deliver.compare.verdict import Change
from local_imager.deliver.compare.words import clean, content_text, inventory_text, size_text
from local_imager.deliver.compare.wrapping import core, wrapper_words, wrapping
from local_imager.deliver.inspect.parts import Fact, Part

# No real tree is deeper; a person would not find the place either.
_MAX_DEPTH: Final = 150
# Larger parts that differ in the same way at several places are told once.
_COPY_BYTES: Final = 4096
# What these are is told at each place that there is.
_PLACES: Final = frozenset({"partition", "pe-section", "boot-entry", "layer", *WRAPPERS})
# What is read or unpacked one after the other.
_ORDERED: Final = frozenset({"cpio", "tar", "layer", "initramfs", "oci-image"})
# Kinds that have no bytes of their own: their facts and children are all that there is.
_BODILESS: Final = frozenset({"directory", "link", "special"})


def find_differences(
    left: Part, right: Part, spellings: tuple[Spelling, Spelling] = (Spelling(), Spelling())
) -> list[Finding]:
    """Return every difference of two trees in the order of the left one.

    ``spellings`` say which words of names stand for the same thing on both sides.
    """
    walker = _Walker(spellings)
    walker.pair(Spot(left, right))
    return walker.found


class _Walker:
    def __init__(self, spellings: tuple[Spelling, Spelling]) -> None:
        self.found: list[Finding] = []
        self._spellings = spellings
        self._seen: dict[tuple[str, str], str] = {}

    def pair(self, spot: Spot) -> None:
        left, right = spot.left, spot.right
        if left.kind != right.kind and self._unwrapped(spot):
            return
        copy, before = self._is_copy(spot), len(self.found)
        self._facts(spot, ENTRY_FACTS if copy else None)
        if left.kind == right.kind == "partition" and left.offset != right.offset:
            values = f"offset {left.offset}", f"offset {right.offset}"
            scope = parent_of(spot.path)
            what = "place of the partition"
            self._add(spot, what, "offset", values, scope=scope, lessens=shows_file(spot))
        if left.kind != right.kind:
            self._add(spot, "kind of part", "kind", (left.kind, right.kind))
            return
        if left.digest and left.digest == right.digest and left.size_bytes == right.size_bytes:
            return
        if left.kind in _BODILESS and not left.digest and not right.digest:
            self._children(spot)
        elif left.kind in WRAPPERS:
            self._wrapper(spot)
        elif not copy:
            self._content(spot, before)

    def _content(self, spot: Spot, before: int) -> None:
        """Compare parts whose bytes differ, or whose bytes are not known to be equal."""
        left, right = spot.left, spot.right
        self._extent(spot)
        if left.children or right.children:
            self._children(spot)
        if not (left.digest and right.digest):
            if left.size_bytes or right.size_bytes or left.digest or right.digest:
                self._unknown(spot, "one side has no digest")
        elif left.unread or right.unread:
            self._unknown(spot, left.unread or right.unread)
        elif not (left.children or right.children):
            self._leaf(spot)
        else:
            hidden = hidden_properties(left) or hidden_properties(right)
            if hidden:
                values = content_text(left), content_text(right)
                self._add(spot, hidden, "hidden", values, scope=spot.path, lessens=False)
            else:
                self._unexplained(spot, before)

    def _extent(self, spot: Spot) -> None:
        """Compare sizes where they are properties of their own."""
        left, right = spot.left, spot.right
        sizes = size_text(left.size_bytes), size_text(right.size_bytes)
        if left.kind in ("partition", "unpartitioned") and sizes[0] != sizes[1]:
            scope = parent_of(spot.path) if is_restated(spot) else None
            self._add(spot, f"size of the {noun(left)}", "size", sizes, scope=scope)
        elif left.kind == "disk" and sizes[0] != sizes[1]:
            # Some containers round the size up; that nothing is there is what `rest` says.
            rests = left.facts.get(REST), right.facts.get(REST)
            if is_padded(spot) and rests[0] is not None and rests[0] == rests[1]:
                what = "size of the virtual disk, by zeros at its end"
                self._add(spot, what, "size", sizes, group="packing")
            else:
                self._add(spot, "size of the disk", "size", sizes, scope=spot.path, lessens=False)

    def _unexplained(self, spot: Spot, before: int) -> None:
        """Name the bytes of a part that what was found inside of it does not account for.

        Noise excuses nothing beside it: it does so only where facts and parts tell of every byte.
        """
        found = [
            one
            for one in self.found[before:]
            if one.left is not spot.left or of_its_bytes(spot.left.kind, one.fact)
        ]
        kinds = kinds_of(spot.left) & kinds_of(spot.right)
        if found and kinds & (WHOLLY_TOLD | PACKED_VOLUMES):
            return
        values = content_text(spot.left), content_text(spot.right)
        if kinds & PACKED_VOLUMES or is_packed(spot):
            self._add(spot, "compression", REST, values, group="packing")
        elif "oci-image" in kinds:
            self._add(spot, "layout of the archive", REST, values, group="packing")
        else:
            scope = spot.path if found else None
            rests = spot.left.facts.get(REST), spot.right.facts.get(REST)
            what = f"bytes of the {noun(spot.left)} outside of its parts"
            if "meta" in kinds and rests[0] is not None and rests[0] == rests[1]:
                what = "order of the values"
            self._add(spot, what, REST, values, scope=scope, lessens=False)

    def _children(self, spot: Spot) -> None:
        if len(spot.holders) >= _MAX_DEPTH:
            self._unknown(spot, f"it lies more than {_MAX_DEPTH} parts deep")
            return
        rows = list(pairs(spot.left, spot.right, self._spellings))
        for left, right in rows:
            if left is not None and right is not None:
                below = spot.below(left, right)
                if left.name != right.name:
                    self._renamed(below)
                self.pair(below)
            else:
                self._alone(spot, left, right)
        if spot.left.kind in _ORDERED and not same_order(spot.left, spot.right, rows):
            self._add(spot, "order of its parts", "order", orders_of(spot.left, spot.right, rows))

    def _renamed(self, spot: Spot) -> None:
        mine, other = self._spellings
        values = clean(spot.left.name), clean(spot.right.name)
        if mine.of(spot.left.name) == other.of(spot.right.name):
            self._add(spot, "name", SPELLING, values)
            return
        if holder_of(spot) not in NUMBERED:  # there a number is the order, which is looked at
            self._add(spot, "name", "name", values)

    def _alone(self, spot: Spot, left: Part | None, right: Part | None) -> None:
        part = left or right
        if part is None:
            return
        path = join(spot.path if left else spot.right_path, part.name)
        values = (inventory_text(left) if left else "", inventory_text(right) if right else "")
        self.found.append(
            Finding(
                path,
                noun(part),
                "presence",
                "real",
                "only-left" if left else "only-right",
                left,
                right,
                values,
                path,
                holders=(*spot.holders, (spot.left, spot.right)),
            )
        )

    def _unwrapped(self, spot: Spot) -> bool:
        """Go past what only wraps the same kind of thing on one side or both."""
        left, right = core(spot.left), core(spot.right)
        if left.kind != right.kind or (left is spot.left and right is spot.right):
            return False
        values = wrapping(spot.left), wrapping(spot.right)
        self._add(spot, "container format", "packing", values, group="packing")
        self.pair(spot.below(left, right, named=False))
        return True

    def _wrapper(self, spot: Spot) -> None:
        left, right = spot.left, spot.right
        inner = [[part for part in side.children if part.name != ""] for side in (left, right)]
        if not inner[0] or not inner[1] or left.unread or right.unread:
            self._unknown(spot, left.unread or right.unread or "nothing of it was unpacked")
            return
        before = len(self.found)
        if len(inner[0]) == len(inner[1]) == 1:
            self.pair(spot.below(inner[0][0], inner[1][0], named=False))
        else:
            self._children(spot)
        if left.kind == "ova" and any(
            one.group == "real" or one.noise for one in self.found[before:]
        ):
            return
        if not any(
            one.path == spot.path and one.left is left and one.group in ("packing", "noise")
            for one in self.found
        ):
            values = wrapping(left), wrapping(right)
            self._add(spot, wrapper_words(left), "packing", values, group="packing")

    def _leaf(self, spot: Spot) -> None:
        left, right = spot.left, spot.right
        values = content_text(left), content_text(right)
        scope = None
        what = f"content of the {noun(left)}"
        if left.text is not None and right.text is not None:
            if left.text == right.text:
                what = f"zeros at the end of the {noun(left)}"
            if left.name == ".pcrsig" and same_but_signed_values(left.text, right.text):
                what, scope = "PCR signature", beside(spot)
            if holder_of(spot) == "ova" and same_but_members(left.text, right.text, siblings(spot)):
                what, scope = "what the file says of the others", parent_of(spot.path)
            if holder_of(spot) == "oci-image" and same_but_restated(left.text, right.text):
                what, scope = "configuration of the image", parent_of(spot.path)
        if left.kind == "pe-signature" and signs_alike(left, right):
            what, scope = "bytes of the signature", parent_of(spot.path)
        if is_restated(spot):
            scope = beside(spot)
        self._add(spot, what, CONTENT, values, scope=scope)

    def _unknown(self, spot: Spot, reason: str) -> None:
        values = content_text(spot.left), content_text(spot.right)
        what = f"content of the {noun(spot.left)}, which could not be compared: {clean(reason)}"
        self._add(spot, what, "unread", values)

    def _is_copy(self, spot: Spot) -> bool:
        """Say that the very same change is told elsewhere already: an ISO holds its ESP thrice."""
        left, right = spot.left, spot.right
        if left.kind != right.kind or left.kind in _PLACES or left.digest == right.digest:
            return False
        if min(left.size_bytes, right.size_bytes) < _COPY_BYTES or not (
            left.digest and right.digest
        ):
            return False
        first = self._seen.setdefault((left.digest, right.digest), spot.path)
        if first == spot.path:
            return False
        values = content_text(left), content_text(right)
        self._add(
            spot, f"the same change as in {first or 'the whole'}", "copy", values, scope=first
        )
        return True

    def _facts(self, spot: Spot, only: Collection[str] | None = None) -> None:
        """Compare facts; of parts of different kinds those that both have."""
        left, right = spot.left, spot.right
        names = set(left.facts) | set(right.facts)
        if left.kind != right.kind:
            # How either is packed is no property that both have: they are different things.
            names = (set(left.facts) & set(right.facts)) - PACKING
        names -= TOLD_OTHERWISE if spot.named else TOLD_OTHERWISE | ENTRY_FACTS
        for name in sorted(names if only is None else names & set(only)):
            first, second = left.facts.get(name), right.facts.get(name)
            if first == second and type(first) is type(second):
                continue
            self._fact(spot, name, first, second)

    def _fact(self, spot: Spot, name: str, first: Fact | None, second: Fact | None) -> None:
        left, right = spot.left, spot.right
        noise = noise_of(Place(name, first, second, left, right, spot.holders))
        scope, lessens = derivation(left, right, name)
        packing = not noise and (
            is_packing(left, right, name)
            or (left.kind == right.kind and left.kind in WRAPPERS)
            or (name == "faults" and only_padded(spot, first, second))
        )
        values = shown(name, first), shown(name, second)
        self._add(
            spot,
            fact_words(left, right, name),
            name,
            values,
            group="packing" if packing else None,
            scope={"": None, "itself": spot.path, "beside": beside(spot)}[scope],
            lessens=lessens,
            values_of=(first, second),
        )

    def _add(
        self,
        spot: Spot,
        what: str,
        fact: str,
        values: tuple[str, str],
        *,
        group: Class | None = None,
        scope: str | None = None,
        values_of: tuple[Fact | None, Fact | None] = (None, None),
        lessens: bool = True,
    ) -> None:
        """Keep a difference; its class is told by the list of noise where it is not given."""
        noise = ""
        change: Change = "altered"
        if group is None:
            place = Place(fact, *values_of, spot.left, spot.right, spot.holders)
            noise = noise_of(place)
            group = "noise" if noise else "real" if scope is None else "derived"
        if group in ("noise", "packing"):
            change = "noise" if group == "noise" else "packing"
        elif fact not in (CONTENT, REST) and values_of != (None, None) and None in values_of:
            change = "only-right" if values_of[0] is None else "only-left"
        self.found.append(
            Finding(
                spot.path,
                what,
                fact,
                group,
                change,
                spot.left,
                spot.right,
                values,
                spot.right_path,
                noise,
                scope or "",
                spot.holders,
                lessens,
            )
        )
