"""What file systems and archives hold, in one shape for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from local_imager.formats.source import FormatError, Source

_MAX_ENTRIES: Final = 100_000
_MAX_PATH_CHARACTERS: Final = 4096
_MAX_CHARACTERS: Final = 8 << 20

EntryKind = Literal["file", "directory", "link", "special"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory, link or special file.

    ``path`` has no slash at its begin or end, and its components are joined by ``/``; the root
    itself is not an entry. It is text from outside: never use it to open or write anything. A name
    that is not valid UTF-8 is kept with surrogate escapes (``os.fsencode`` gives its bytes back).
    ``size_bytes`` is the content's length (0 for all but files), ``mode`` the permission bits
    without the type, ``mtime`` seconds since 1970 in UTC where the format has a zone and the
    written wall clock taken as UTC where it has none (FAT). ``link_target`` is the text of a
    symbolic link, or the path of the entry that a hard link means. ``attributes`` are FAT's
    (``read-only``, ``hidden``, ``system``, ``archive``). What a format does not keep is None.
    ``number`` is the format's own handle (inode, cluster), only for its reader.
    """

    path: str
    kind: EntryKind
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    link_target: str | None = None
    attributes: tuple[str, ...] = ()
    number: int = 0

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]


class EntryBudget:
    """Refuses trees that are larger than any real one, before they fill the memory."""

    def __init__(self) -> None:
        self._entries = _MAX_ENTRIES
        self._characters = _MAX_CHARACTERS

    def spend(self, path: str) -> None:
        """Count one entry; raises :class:`FormatError` when there are too many or too long."""
        self._entries -= 1
        self._characters -= len(path)
        if self._entries < 0 or self._characters < 0 or len(path) > _MAX_PATH_CHARACTERS:
            raise FormatError("there are more files, or longer names, than any boot file has")


class Volume(Protocol):
    """A file system or archive that was read: every entry, parents before what they hold."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries in the order that they have in the file, parents first."""

    def open(self, entry: Entry) -> Source:
        """Return the content of one of the entries of kind file.

        Raises :class:`~local_imager.formats.source.FormatError` for other kinds and for content
        that breaks the format's rules.
        """
