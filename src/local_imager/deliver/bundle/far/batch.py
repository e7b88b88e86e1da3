"""Several changes of a layout's index that become visible together."""

from __future__ import annotations

from collections.abc import Callable

from local_imager.oci.layout import Document, Layout
from local_imager.oci.model import Descriptor, parse_descriptor


class IndexBatch(Layout):
    """A layout whose index changes only when :meth:`flush` is called; blobs go to it at once.

    What is read through it shows the changes already. They are made anew on the index as it is
    then, so what other processes changed meanwhile stays.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.path)
        self._layout = layout
        self._seen = layout.document()
        self._changes: list[Callable[[Document], None]] = []
        self._entries: tuple[Descriptor, ...] | None = None
        self._known: dict[int, tuple[object, Descriptor]] = {}

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries as they will be."""
        if self._entries is None:
            self._entries = tuple(map(self._parsed, self._seen["manifests"]))
        return self._entries

    def _parsed(self, entry: object) -> Descriptor:
        """Parse an entry once; most stay as they are."""
        known = self._known.get(id(entry))
        if known is None or known[0] is not entry:
            known = self._known[id(entry)] = (entry, parse_descriptor(entry, "index.json"))
        return known[1]

    def update_index(self, change: Callable[[Document], None]) -> None:
        """Make a change with the next flush."""
        change(self._seen)
        self._changes.append(change)
        self._entries = None

    def flush(self) -> None:
        """Make all changes in one replacement of the index; raises :class:`StoreError`."""
        changes, self._changes = self._changes, []

        def all_of_them(document: Document) -> None:
            for change in changes:
                change(document)

        if changes:
            self._layout.update_index(all_of_them)
