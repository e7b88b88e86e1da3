"""A pair of parts on the way down two trees, and what its surroundings say of it."""

from __future__ import annotations

from dataclasses import dataclass

from local_imager.deliver.compare.align import WRAPPERS, content_kind
from local_imager.deliver.compare.finding import join
from local_imager.deliver.compare.noise import REST
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.formats.gpt import NOT_AT_THE_END


@dataclass(frozen=True, slots=True)
class Spot:
    """A pair of parts on the way down."""

    left: Part
    right: Part
    path: str = ""
    right_path: str = ""
    holders: tuple[tuple[Part, Part], ...] = ()
    # Without names: what a wrapper says of its content (a mode in a tar file) is no part of it.
    named: bool = True

    def below(self, left: Part, right: Part, *, named: bool = True) -> Spot:
        """Return a pair of what these parts hold."""
        return Spot(
            left,
            right,
            join(self.path, left.name) if named else self.path,
            join(self.right_path, right.name) if named else self.right_path,
            (*self.holders, (self.left, self.right)),
            named,
        )


def holder_of(spot: Spot) -> str:
    """Return the kind of what holds the parts, empty for the outermost."""
    return content_kind(spot.holders[-1][0]) if spot.holders else ""


def is_restated(spot: Spot) -> bool:
    """Say whether a part of an ISO only shows bytes once more that other parts of it are.

    Such are the catalogue of boot images, which ``rest`` tells without the places of these, and the
    partitions of a hybrid that are the volume itself, a file of it or a piece.
    """
    depth = next(
        (n for n, (left, _) in enumerate(reversed(spot.holders), 1) if left.kind != "directory"), 0
    )
    if not depth or content_kind(spot.holders[-depth][0]) != "iso":
        return False
    paths = ("/".join(path.split("/")[-depth:]) for path in (spot.path, spot.right_path))
    sides = zip(spot.holders[-depth], paths, strict=True)
    if all(holder.facts.get("catalog") == path for holder, path in sides):
        return True
    return all(
        part.kind == "partition" and "view" in part.facts for part in (spot.left, spot.right)
    )


def beside(spot: Spot) -> str:
    """Return the path of what holds a part, past directories: a profile of a UKI is one."""
    depth = next(
        (n for n, (left, _) in enumerate(reversed(spot.holders), 1) if left.kind != "directory"), 1
    )
    return "/".join(spot.path.split("/")[:-depth])


def shows_file(spot: Spot) -> bool:
    """Say whether a partition of an ISO is one of its files on both sides, the same one: where it
    lies follows from what is in front of it."""
    images = [part.facts.get("image") for part in (spot.left, spot.right)]
    return is_restated(spot) and images[0] is not None and images[0] == images[1]


def is_padded(spot: Spot) -> bool:
    """Say whether a disk lies in a container on a side: some round its size up."""
    return any(one.kind in WRAPPERS for pair in spot.holders for one in pair)


def only_padded(spot: Spot, *faults: Fact | None) -> bool:
    """Say whether what is wrong with a disk is on one side only that zeros follow its end."""
    rests = spot.left.facts.get(REST), spot.right.facts.get(REST)
    if not is_padded(spot) or rests[0] is None or rests[0] != rests[1]:
        return False
    sides = [set(one) if isinstance(one, tuple) else set() for one in faults]
    return sides[0] ^ sides[1] == {NOT_AT_THE_END}


def siblings(spot: Spot) -> tuple[dict[str, Part], dict[str, Part]]:
    """Return what lies beside the parts on either side, by name."""
    left, right = ({one.name: one for one in side.children} for side in spot.holders[-1])
    return left, right


def is_packed(spot: Spot) -> bool:
    """Say whether both sides are archives whose unpacked bytes are all told."""
    both = spot.left, spot.right
    return all(
        one.kind in ("cpio", "layer") and one.facts.get("packing", "none") != "none" for one in both
    )


def parent_of(path: str) -> str:
    """Return the path of what holds a path."""
    return path.rpartition("/")[0]
