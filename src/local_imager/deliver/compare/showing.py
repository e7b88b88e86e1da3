"""Makes what is reported from what was found, within bounds, however much that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from local_imager.deliver.compare.finding import Finding, volume_of
from local_imager.deliver.compare.fold import Headline
from local_imager.deliver.compare.masking import shown_diff
from local_imager.deliver.compare.noise import ALL_NOISE, CONTENT, FOLLOWS_NOISE, REST
from local_imager.deliver.compare.semantic import Semantic
from local_imager.deliver.compare.verdict import Difference
from local_imager.deliver.compare.words import clean

if TYPE_CHECKING:
    from local_imager.deliver.compare.bytesdiff import Locate

# A diff or a look for the first differing byte costs time; nobody reads more of them.
_MAX_LOOKS: Final = 300


@dataclass
class Showing:
    """Turns findings into differences; ``limit`` bounds what goes with each of them.

    ``images`` are both sides' files of extensions, which say where an extension is seen.
    """

    limit: int
    locate: Locate | None
    images: tuple[Mapping[str, str], Mapping[str, str]]
    _looks: int = field(default=0, init=False)

    def difference(self, headline: Headline) -> Difference:
        """Return a headline with what goes with it."""
        semantic, first = headline.semantic, headline.finding
        follows = [_of_semantic(one) for one in headline.meanings[: self.limit]]
        if semantic is not None:
            top = _of_semantic(semantic)
            top = top if top.path else replace(top, path=self._place(headline))
        elif first is not None:
            top = self.finding(first)
        else:
            raise ValueError("a headline is about a meaning or a part")
        follows += [self.finding(one) for one in headline.parts[: self.limit]]
        if headline.alike and first is not None:
            what = f"{top.what}, in {len(headline.alike) + 1} entries alike"
            follows += [top, *(self.finding(one) for one in headline.alike[: self.limit])]
            top = replace(top, what=what, path=volume_of(first))
        return replace(top, consequences=tuple(follows[: self.limit]))

    def finding(self, one: Finding) -> Difference:
        """Return a difference of a part, with a diff or the place of the first differing byte."""
        diff, found = "", None
        looked_at = one.fact in (CONTENT, REST) and self._looks < _MAX_LOOKS
        if looked_at and one.left and one.right:
            self._looks += 1
            texts = one.left.text, one.right.text
            if one.fact == CONTENT and texts[0] is not None and texts[1] is not None:
                diff = shown_diff(texts[0], texts[1])
            found = self.locate(one) if self.locate is not None else None
        return Difference(
            one.path,
            one.what,
            one.change,
            one.values[0],
            one.values[1],
            diff,
            one.noise,
            offset=found.offset if found else None,
            size_bytes=found.size_bytes if found else None,
            where=found.where if found else "",
        )

    def grouped(self, noise: Iterable[Finding]) -> list[Difference]:
        """Put the same noise of many files of one archive or file system into one line.

        What follows from noise is listed one by one: each has a cause of its own.
        """
        groups: dict[tuple[str, str], list[Finding]] = {}
        for one in noise:
            alone = one.noise == FOLLOWS_NOISE.code
            place = f"{one.path} {one.what}" if alone else volume_of(one)
            groups.setdefault((one.noise, place), []).append(one)
        rows = []
        for (_, place), members in groups.items():
            row = self.finding(members[0])
            if len(members) > 1:
                what = f"{row.what} ({len(members)} times so)"
                row = replace(row, path=place, what=what, diff="")
            rows.append(row)
        order = {rule.code: index for index, rule in enumerate(ALL_NOISE)}
        return sorted(rows, key=lambda row: order.get(row.noise, len(order)))

    def _place(self, headline: Headline) -> str:
        """Return where a difference in meaning is seen: an extension's image, or a first part."""
        key = headline.semantic.key if headline.semantic else ""
        names = {side[key] for side in self.images if key in side}
        for one in headline.parts:
            for path in (one.path, one.right_path):
                steps = path.split("/")
                for index, step in enumerate(steps):
                    if step in names:
                        return "/".join(steps[: index + 1])
        # What is only taken to follow is no place where the difference is seen.
        assumed = {id(one) for one in headline.assumed}
        seen = (one.path for one in headline.parts if id(one) not in assumed)
        return next((path for path in seen if path), "")


def _of_semantic(one: Semantic) -> Difference:
    return Difference(clean(one.path), one.what, one.change, one.left, one.right, one.diff)
