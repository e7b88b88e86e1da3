"""Several changes of a layout's index that become visible together."""

from __future__ import annotations

from local_imager.oci.indexlines import Change, IndexLines
from local_imager.oci.layout import Layout


class IndexBatch(Layout):
    """A layout whose index changes only when :meth:`flush` is called; blobs go to it at once.

    What is read through it shows the changes already. They are made anew on the index as it is
    then, so what other processes changed meanwhile stays.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.path)
        self._layout = layout
        self._seen = layout.index()
        self._changes: list[Change] = []

    def index(self) -> IndexLines:
        """Return the index as it will be."""
        return self._seen

    def update_index(self, *changes: Change) -> None:
        """Make changes with the next flush."""
        for change in changes:
            self._seen = self._seen.edited(change)
            self._changes.append(change)

    def flush(self) -> None:
        """Make all changes in one replacement of the index; raises :class:`StoreError`."""
        changes, self._changes = self._changes, []
        if changes:
            self._layout.update_index(*changes)
