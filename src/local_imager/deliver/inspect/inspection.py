"""Inspects a file: its parts, what they mean, and which build made it or could make it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.deliver.inspect.limits import Digests, Limits
from local_imager.deliver.inspect.meaning import Meaning
from local_imager.deliver.inspect.parts import Part
from local_imager.events import NULL_SINK, EventSink
from local_imager.formats.source import FileSource, Source, sha256_of

if TYPE_CHECKING:
    from local_imager.deliver.inspect.known import Known
    from local_imager.deliver.inspect.remake import Remake
    from local_imager.store.store import Store

FORMAT: Final = "local-imager/inspection/v1"


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result: the tree of parts, its meaning, and where it comes from.

    ``known`` is the build in the store that made the file; where there is none, ``remake`` says
    how to make it again, as far as that can be told (None for what is no asset of Talos).
    """

    tree: Part
    meaning: Meaning
    known: Known | None = None
    remake: Remake | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``inspect --json`` (docs/inspect.md)."""
        return {
            "format": FORMAT,
            "name": self.tree.name,
            "size_bytes": self.tree.size_bytes,
            "digest": self.tree.digest or None,
            **self.meaning.as_dict(),
            "known": self.known.as_dict() if self.known else None,
            "remake": self.remake.as_dict() if self.remake else None,
            "parts": self.tree.as_dict(),
        }


def inspect_file(
    path: Path,
    *,
    sink: EventSink = NULL_SINK,
    store: Store | None = None,
    limits: Limits | None = None,
    digests: Digests = "all",
    name: str = "",
) -> Inspection:
    """Say what a file is; ``name`` is what it is called in place of its file name.

    ``store`` is asked for the build that made it. With ``digests`` "parts" those above 192 MiB
    get none, with "content" one of what of them is no zero (``sparse-sha256:…``), and with
    "meaning" the files of root file systems are not even read. Raises
    :class:`~local_imager.formats.source.FormatError` for a file that is damaged as a whole, and
    OSError for one that cannot be read.
    """
    with FileSource(path) as source:
        return inspect_source(
            source, name or path.name, sink=sink, store=store, limits=limits, digests=digests
        )


def inspect_source(
    source: Source,
    name: str,
    *,
    sink: EventSink = NULL_SINK,
    store: Store | None = None,
    limits: Limits | None = None,
    digests: Digests = "all",
) -> Inspection:
    """Say what some bytes are; as :func:`inspect_file`."""
    from local_imager.deliver.inspect.known import find_known
    from local_imager.deliver.inspect.reading import meaning_of
    from local_imager.deliver.inspect.remake import remake_of
    from local_imager.deliver.inspect.tree import part_tree

    tree = part_tree(source, name, limits=limits, sink=sink, digests=digests)
    meaning = meaning_of(tree)
    known = None
    if store is not None:
        digest = tree.digest if tree.digest.startswith("sha256:") else ""
        known = find_known(store, tree.size_bytes, digest, lambda: sha256_of(source))
    return Inspection(tree, meaning, known, None if known else remake_of(meaning))
