"""Where parts lie: the volume around each, and its path in that volume as a boot loader sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from local_imager.deliver.inspect.parts import Part


@dataclass(frozen=True, slots=True)
class Place:
    """A part with its path in the file.

    ``volume`` is the path of what holds it (the nearest part above that is no directory) and
    ``volume_kind`` what that is (``fat``, ``iso``, ``disk`` …); both are empty for the file itself.
    """

    path: str
    part: Part
    volume: str = ""
    volume_kind: str = ""

    @property
    def inside(self) -> str:
        """The path inside of the volume, in lower case: FAT does not tell cases apart."""
        below = self.path[len(self.volume) :] if self.volume else self.path
        return below.lstrip("/").lower()

    @property
    def folder(self) -> str:
        """The path of the directory that it lies in, as :attr:`inside`."""
        return self.inside.rpartition("/")[0]


def content_of(part: Part) -> str:
    """Return what a part is, also where it is a place (partition, section) that holds it."""
    return str(part.facts.get("content", part.kind))


def places(tree: Part) -> Iterator[Place]:
    """Yield every part of the tree with its place, in the order of :meth:`Part.walk`."""
    yield Place("", tree)
    yield from _below(tree, "", "", content_of(tree))


def is_whole(path: str) -> bool:
    """Whether a path is the file itself, or what is packed in nothing but streams."""
    return all(name == "content" for name in path.split("/") if name)


def outside_of(starts: Iterable[str]) -> Callable[[str], bool]:
    """Return a test whether a path lies in none of these: a key that sorts what boots first."""
    prefixes = tuple(f"{path.lower()}/" if path else "" for path in starts)
    return lambda path: not f"{path.lower()}/".startswith(prefixes)


def _below(part: Part, prefix: str, volume: str, kind: str) -> Iterator[Place]:
    for child in part.children:
        path = f"{prefix}/{child.name}" if prefix else child.name
        yield Place(path, child, volume, kind)
        if child.kind == "directory":
            yield from _below(child, path, volume, kind)
        else:
            yield from _below(child, path, path, content_of(child))
