"""The index of a layout with one entry a line: looked up and changed without parsing the rest.

A store of ten thousand assets has an ``index.json`` of ten megabytes, of which a look-up needs one
line and a build changes two. So this program writes one entry a line, and into the head of a large
index how many bytes these lines have. An index that says so truly was written here, as a whole,
and is searched as bytes. Every other index (another tool's, an older program's, a small one) is
parsed, checked and brought into the same lines first, so that there is one way on from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from local_imager.errors import SourceError
from local_imager.oci.model import (
    ANNOTATION_REF_NAME,
    Descriptor,
    load_json_object,
    parse_descriptor,
)

Document = dict[str, Any]

# A store of ten thousand assets has about 10 MB of index; more is not one of ours.
MAX_INDEX_BYTES: Final = 64 * 1024 * 1024
MAX_ENTRIES: Final = 200_000
# How many bytes the lines of the entries have; written from so many on.
ANNOTATION_LINES: Final = "io.local-imager.index.lines"
MARKED_FROM_BYTES: Final = 64 * 1024

# How a line begins that describes a descriptor of ours, and one that names a list of what is
# attached to a digest. Fields are told by their place: annotations may have any name and value.
LINE_BEGIN: Final = (
    rb'\A\{"mediaType": "[^"\\]*", "digest": "sha256:[0-9a-f]{64}", "size": [0-9]+, '
)
ATTACHED_LINE: Final = LINE_BEGIN + (
    rb'"annotations": \{"%b": "(?:[^"\\]*[:/@])?sha256-[0-9a-f]{64}"[,}]'
    % re.escape(ANNOTATION_REF_NAME).encode()
)

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
_MAX_HEAD_BYTES: Final = 64 * 1024
_HEAD_END: Final = b'"manifests": ['
_TAIL: Final = b"\n]}\n"
_BETWEEN: Final = b",\n"


@dataclass(frozen=True, slots=True)
class EntryChange:
    """A change of the entries that hold certain texts (names, digests), and of no others.

    ``edit`` gets at least all entries in whose strings one of the texts stands, and returns the
    list as it is to be: what stays (the same objects) keeps its place, what is new comes last.
    """

    texts: tuple[str, ...]
    edit: Callable[[list[Document]], list[Document]]


# What edits an index: some entries, or the whole document in place.
Change = EntryChange | Callable[[Document], None]


def parse_index_document(untrusted_data: bytes, what: str) -> Document:
    """Read ``index.json`` and check what every entry holds; unknown fields are kept as they are.

    Raises :class:`SourceError` with the code ``malformed``.
    """
    document = load_json_object(untrusted_data, what, max_bytes=MAX_INDEX_BYTES)
    entries = document.setdefault("manifests", [])
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise SourceError(f"{what}: manifests is not a list of reasonable length", code="malformed")
    for entry in entries:
        parse_descriptor(entry, what)
    return document


class IndexLines:
    """One state of an index, unchangeable: the bytes of the file, with one entry a line."""

    __slots__ = ("_begin", "_end", "_entries", "_head", "data")

    def __init__(self, head: Document, lines: Sequence[bytes]) -> None:
        self._head = head
        length = sum(map(len, lines)) + len(_BETWEEN) * max(0, len(lines) - 1)
        written = _marked(head, length) if length >= MARKED_FROM_BYTES else head
        begin = _ENCODER.encode(written).removesuffix("}") + (", " if written else "")
        first = begin.encode() + _HEAD_END + b"\n"
        self._begin, self._end = len(first), len(first) + length
        self.data = b"".join([first, _BETWEEN.join(lines), _TAIL])
        self._entries: tuple[Descriptor, ...] | None = None

    @classmethod
    def read(cls, untrusted_data: bytes, what: str) -> IndexLines:
        """Read the bytes of an ``index.json``.

        Raises :class:`SourceError` (``malformed``); for lines that were written here and damaged
        since, when they are looked at.
        """
        head = _own_head(untrusted_data)
        if head is None:
            return cls.of(parse_index_document(untrusted_data, what))
        own = cls.__new__(cls)
        own._head, own._entries, own.data = head, None, untrusted_data
        own._begin = untrusted_data.index(b"\n") + 1
        own._end = len(untrusted_data) - len(_TAIL)
        return own

    @classmethod
    def of(cls, document: Document) -> IndexLines:
        """Return the lines of a document whose entries were checked or made here."""
        head = {key: value for key, value in document.items() if key != "manifests"}
        try:
            return cls(_unmarked(head), [_line(entry) for entry in document["manifests"]])
        except (ValueError, RecursionError) as error:  # half a surrogate pair, too deep
            raise SourceError("index.json cannot be written again", code="malformed") from error

    @property
    def head(self) -> Document:
        """The fields beside the entries, such as annotations."""
        return dict(self._head)

    @property
    def count(self) -> int:
        """How many entries there are."""
        between = self.data.count(_BETWEEN, self._begin, self._end)
        return between + 1 if self._end > self._begin else 0

    def document(self) -> Document:
        """Return the whole as a document of its own."""
        return {**self._head, "manifests": self._parse([(self._begin, self._end)])}

    def entries(self) -> tuple[Descriptor, ...]:
        """Return all entries."""
        if self._entries is None:
            self._entries = _descriptors(self._parse([(self._begin, self._end)]))
        return self._entries

    def holding(self, *texts: str) -> tuple[Descriptor, ...]:
        """Return, in order, the entries in which one of the texts stands, in whatever place."""
        return _descriptors(self._parse(self._spans(map(_needle, texts))))

    def saying(self, *values: str) -> tuple[Descriptor, ...]:
        """Return, in order, the entries in which one of the values is a whole string."""
        return _descriptors(self._parse(self._spans(b'"%b"' % _needle(one) for one in values)))

    def beginning(self, *values: tuple[str, str]) -> tuple[Descriptor, ...]:
        """Return, in order, the entries that hold a key (or its end) whose value begins so.

        Longer texts are found faster: a few digits of a digest take as long as all else together.
        """
        pieces = [b'%b": "%b' % (_needle(key), _needle(begin)) for key, begin in values]
        return _descriptors(self._parse(self._spans(pieces)))

    def lacking(self, pattern: re.Pattern[bytes]) -> tuple[Descriptor, ...]:
        """Return, in order, the entries in whose JSON (spaced as Python does) nothing matches."""
        lines = self.data[self._begin : self._end].split(_BETWEEN)
        return _descriptors(_parsed([line for line in lines if not pattern.search(line)]))

    def contains(self, json_text: bytes) -> bool:
        """Return whether this piece of JSON (spaced as Python does) stands in an entry."""
        return self.data.find(json_text, self._begin, self._end) >= 0

    def edited(self, change: Change) -> IndexLines:
        """Return the index after a change."""
        if isinstance(change, EntryChange):
            return self._spliced(change)
        document = self.document()
        change(document)
        return IndexLines.of(document)

    def _spliced(self, change: EntryChange) -> IndexLines:
        spans = self._spans(map(_needle, change.texts))
        found = self._parse(spans)
        wanted = change.edit(list(found))
        kept, known = {id(entry) for entry in wanted}, {id(entry) for entry in found}
        gone = [span for span, entry in zip(spans, found, strict=True) if id(entry) not in kept]
        pieces, position = [], self._begin
        for begin, end in gone:
            if begin > position:
                pieces.append(self.data[position : begin - len(_BETWEEN)])
            position = end + len(_BETWEEN)
        if position < self._end:
            pieces.append(self.data[position : self._end])
        pieces += [_line(entry) for entry in wanted if id(entry) not in known]
        return IndexLines(self._head, pieces)

    def _spans(self, needles: Iterable[bytes]) -> list[tuple[int, int]]:
        """Return begin and end of the lines that hold one of the needles."""
        found: dict[int, int] = {}
        for needle in needles:
            position = self._begin
            while position < self._end:
                hit = self.data.find(needle, position, self._end)
                if hit < 0:
                    break
                end = self.data.find(_BETWEEN, hit, self._end)
                end = self._end if end < 0 else end
                found[self.data.rfind(b"\n", 0, hit) + 1] = end
                position = end + len(_BETWEEN)
        return sorted(found.items())

    def _parse(self, spans: Sequence[tuple[int, int]]) -> list[Document]:
        return _parsed([self.data[begin:end] for begin, end in spans])


def _parsed(lines: Sequence[bytes]) -> list[Document]:
    try:
        entries: list[Document] = json.loads(b"[%b]" % _BETWEEN.join(lines))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"index.json is not valid JSON: {error}", code="malformed") from error
    return entries


def _line(entry: Document) -> bytes:
    return _ENCODER.encode(entry).encode()


def _needle(text: str) -> bytes:
    """Return the text as it stands inside a JSON string of ours."""
    return _ENCODER.encode(text)[1:-1].encode(errors="surrogatepass")


def _descriptors(entries: Sequence[object]) -> tuple[Descriptor, ...]:
    return tuple([parse_descriptor(entry, "index.json") for entry in entries])


def _unmarked(head: Document) -> Document:
    """Return the head without the mark of its lines, which every writing sets anew."""
    said = head.get("annotations")
    if not isinstance(said, dict) or ANNOTATION_LINES not in said:
        return head
    rest = {key: value for key, value in said.items() if key != ANNOTATION_LINES}
    plain = {key: value for key, value in head.items() if key != "annotations"}
    return {**plain, "annotations": rest} if rest else plain


def _marked(head: Document, length: int) -> Document:
    said = head.get("annotations") or {}
    return {**head, "annotations": {**said, ANNOTATION_LINES: str(length)}}


def _own_head(untrusted_data: bytes) -> Document | None:
    """Return the head of an index that was written here, a whole with its lines; else None."""
    end = untrusted_data.find(b"\n", 0, _MAX_HEAD_BYTES)
    head = untrusted_data[: max(end, 0)]
    marked = head.endswith(_HEAD_END) and ANNOTATION_LINES.encode() in head
    if not marked or not untrusted_data.endswith(_TAIL) or len(untrusted_data) > MAX_INDEX_BYTES:
        return None
    try:
        document = load_json_object(head + b"]}", "index.json")
    except SourceError:
        return None
    said, length = document.get("annotations"), len(untrusted_data) - end - 1 - len(_TAIL)
    if not isinstance(said, dict) or said.get(ANNOTATION_LINES) != str(length):
        return None
    del document["manifests"]
    return _unmarked(document)
