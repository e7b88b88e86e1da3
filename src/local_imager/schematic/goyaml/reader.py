"""Bytes to characters, window by window as the Go library decodes its input.

The library reads 512 bytes at a time and stops at the end of the first document, so a bad byte
counts only if the window that holds it is decoded at all. That makes the windows part of the
rules of what is accepted.
"""

from __future__ import annotations

import re

from local_imager.schematic.goyaml.errors import YamlError

WINDOW_BYTES = 512
END = "\0"  # what the scanner sees behind the last character; the input cannot hold it
BOM = "\ufeff"

# What the library takes: \t \n \r \x20-\ud7ff \ue000-\ufffd and all beyond. Written as the rest,
# since Python takes milliseconds over a large range.
_FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_ENCODINGS = (
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)


class Reader:
    """The characters that are decoded and not yet dropped: ``text``, of which ``pos`` is next.

    Promises that ``text`` begins where the library's own buffer begins; indexes into it are good
    until the next :meth:`need`.
    """

    __slots__ = ("_data", "_encoding", "_offset", "_unread_window", "pos", "text")

    def __init__(self, untrusted_data: bytes) -> None:
        self._data = untrusted_data
        self._encoding = "utf-8"
        self._offset = 0
        for mark, encoding in _ENCODINGS:
            if untrusted_data.startswith(mark):
                self._encoding, self._offset = encoding, len(mark)
                break
        self._unread_window = WINDOW_BYTES - self._offset  # the mark sits in the first window
        self.text = ""
        self.pos = 0

    def need(self, count: int) -> None:
        """Make ``count`` characters visible from ``pos``; behind the end they are ``END``.

        Raises YamlError where a window holds bytes that are not allowed, each time it is asked.
        """
        if len(self.text) - self.pos >= count:
            return
        self.text = self.text[self.pos :]
        self.pos = 0
        while len(self.text) < count:
            if self._offset >= len(self._data):
                self.text += END * (count - len(self.text))
            else:
                self._decode_window()

    @property
    def starts_with_bom(self) -> bool:
        """Whether the buffer begins with a byte order mark just now."""
        return self.text.startswith(BOM)

    def _decode_window(self) -> None:
        window = self._data[self._offset : self._offset + self._unread_window]
        self._unread_window = WINDOW_BYTES
        # A character that is cut off is an error only when nothing else is left to decode.
        window = window[: len(window) - self._cut_length(window)] or window
        problem = ""
        try:
            text = window.decode(self._encoding)
        except UnicodeDecodeError as error:
            text = window[: error.start].decode(self._encoding)
            problem = f"the input is not valid {self._encoding.upper()}"
        forbidden = _FORBIDDEN.search(text)
        if forbidden:
            problem = f"the control character U+{ord(forbidden.group()):04X} is not allowed"
            text = text[: forbidden.start()]
        self._offset += len(text.encode(self._encoding)) if problem else len(window)
        self.text += text
        if problem:
            raise YamlError(problem, *self._place())

    def _cut_length(self, window: bytes) -> int:
        """Return how many bytes at the window's end are the beginning of a cut character."""
        if self._encoding == "utf-8":
            for back in (3, 2, 1):
                lead = window[-back] if len(window) >= back else 0
                # Whether the bytes behind the lead are valid is not asked before all are there.
                if 0xC0 <= lead < 0xF8 and back < 2 + (lead >= 0xE0) + (lead >= 0xF0):
                    return back
            return 0
        if len(window) % 2:
            return 1 + self._cut_length(window[:-1])
        high_byte = window[-1 if self._encoding == "utf-16-le" else -2] if window else 0
        return 2 if 0xD8 <= high_byte <= 0xDB else 0

    def _place(self) -> tuple[int, int]:
        """Return line and column of the first byte that was not decoded."""
        before = self._data[: self._offset].decode(self._encoding).lstrip(BOM)
        return before.count("\n") + 1, len(before) - before.rfind("\n")
