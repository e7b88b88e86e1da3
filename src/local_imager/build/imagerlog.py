"""The imager's own output: bounded, without secrets, and turned into events.

The imager writes its whole profile to stderr, embedded machine configuration included, and the
kernel command line as well. Neither may reach a log, an event or a report, so the dump is cut out
here, before anything is kept.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from typing import Final

from local_imager.events import EventSink, Message, Progress, printable

# A normal log is under 20 KiB; a runaway program must not fill memory, and its first and last
# words are what explains it.
HEAD_BYTES: Final = 1024 * 1024
TAIL_BYTES: Final = 3 * 1024 * 1024
MAX_LINE_CHARS: Final = 16 * 1024

_DUMP_BEGINS: Final = "profile ready:"
# The keys at the left margin of the dump (Talos pkg/imager/profile/profile.go); every other line
# of it is indented or empty, also inside literal texts.
_DUMP_KEY: Final = re.compile(
    r"(baseProfileName|arch|platform|secureboot|name|version|customization|input|overlay|output):"
    r"( |$)"
)
_COMMAND_LINE: Final = "kernel command line: "

# The order of work, as the reporter's messages begin; what share of the steps is behind us.
_STAGES: Final = (
    ("profile ready", 1),
    ("rebuilding initramfs", 2),
    ("initramfs ready", 3),
    ("kernel command line", 4),
    ("building UKI", 5),
    ("UKI ready", 6),
    ("copying kernel", 7),
    ("copying initramfs", 7),
    ("building ISO", 7),
    ("creating disk image", 7),
    ("building installer", 7),
    ("ISO ready", 8),
    ("disk image ready", 8),
    ("kernel output ready", 8),
    ("initramfs output ready", 8),
    ("UKI output ready", 8),
    ("installer container image ready", 8),
    ("output asset path", 9),
    ("compressing", 9),
    ("compression done", 10),
    ("archive is ready", 10),
)
STAGE_COUNT: Final = 10


class Redactor:
    """Replaces known secret texts; short or common texts are left alone, they would mask noise."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        lines = {line.strip() for secret in secrets for line in secret.splitlines()}
        words = sorted((line for line in lines if len(line) >= 6), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def __call__(self, text: str) -> str:
        """Return the text with every secret replaced by ``***``."""
        return self._pattern.sub("***", text) if self._pattern else text


class BoundedText:
    """Keeps the first and the last part of a long text and counts what it drops between."""

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_left = head_bytes
        self._tail_left = tail_bytes
        self._dropped_lines = 0

    def add(self, line: str) -> None:
        """Append one line (without its end)."""
        size = len(line) + 1
        if self._head_left >= size:
            self._head_left -= size
            self._head.append(line)
            return
        self._head_left = 0
        self._tail.append(line)
        self._tail_left -= size
        while self._tail_left < 0:
            self._tail_left += len(self._tail.popleft()) + 1
            self._dropped_lines += 1

    def text(self) -> str:
        """Return what was kept, with a line that says how much was left out."""
        gap = [f"[{self._dropped_lines} lines left out]"] if self._dropped_lines else []
        lines = [*self._head, *gap, *self._tail]
        return "\n".join(lines) + "\n" if lines else ""

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines that are not empty."""
        lines = [line for line in [*self._head[-count:], *self._tail] if line.strip()]
        return lines[-count:]


class ImagerLog:
    """Takes the raw output bytes of a run, as they come, and emits events for whole lines."""

    def __init__(
        self,
        subject: str,
        sink: EventSink,
        secrets: tuple[str, ...] = (),
        *,
        hide_command_line: bool = False,
    ) -> None:
        self._subject = subject
        self._sink = sink
        self._redact = Redactor(secrets)
        self._hide_command_line = hide_command_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = ""
        self._overlong = False
        self._dumped_lines = -1
        self._stage = 0
        self.kept = BoundedText()

    def feed(self, untrusted_data: bytes) -> None:
        """Take the next bytes; may be cut anywhere, also inside a character."""
        text = self._partial + self._decoder.decode(untrusted_data)
        *lines, self._partial = text.replace("\r\n", "\n").split("\n")
        for line in lines:
            if not self._overlong:
                self._line(line)
            self._overlong = False
        if len(self._partial) > MAX_LINE_CHARS:
            # The rest of such a line is dropped: cut in two, its second half would no longer be
            # recognised as part of the profile dump.
            if not self._overlong:
                self._line(self._partial)
            self._overlong, self._partial = True, ""

    def finish(self) -> str:
        """Take the end of the output and return the log that is kept."""
        if self._partial and not self._overlong:
            self._line(self._partial)
        self._partial = ""
        self._end_dump()
        return self.kept.text()

    def _line(self, line: str) -> None:
        if self._dumped_lines >= 0:
            if not line.strip() or line[0] in " \t" or _DUMP_KEY.match(line):
                self._dumped_lines += 1
                return
            self._end_dump()
        if line.startswith(_COMMAND_LINE) and self._hide_command_line:
            line = _COMMAND_LINE + "(not shown: the schematic holds secrets)"
        line = printable(self._redact(line.expandtabs(4)), limit=MAX_LINE_CHARS)
        self.kept.add(line)
        self._sink.emit(Message(line, "log"))
        self._advance(line)
        if line.strip() == _DUMP_BEGINS:
            self._dumped_lines = 0

    def _end_dump(self) -> None:
        if self._dumped_lines > 0:
            self.kept.add(f"[profile of {self._dumped_lines} lines: see the build record]")
        self._dumped_lines = -1

    def _advance(self, line: str) -> None:
        stage = next((number for begin, number in _STAGES if line.startswith(begin)), 0)
        if stage > self._stage:
            self._stage = stage
            self._sink.emit(Progress("build", self._subject, stage, STAGE_COUNT))
