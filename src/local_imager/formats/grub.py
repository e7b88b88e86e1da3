"""Menu entries of a grub.cfg, told without running it.

Words, quotes and blocks follow the GRUB manual ("Shell-like scripting"); conditions and variables
are not evaluated, and an entry says when it has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from local_imager.formats.source import FormatError

# The largest that grub-mkconfig writes has some ten thousand.
MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32
_LINUX: Final = ("linux", "linuxefi", "linux16")
_INITRD: Final = ("initrd", "initrdefi", "initrd16")
_MENUS: Final = ("menuentry", "submenu")
# Options of menuentry and submenu with a value behind them.
_VALUED: Final = ("--class", "--users", "--hotkey", "--source", "--id")
_SPECIAL_IN_QUOTES: Final = '$"\\`\n'
_VARIABLE: Final = re.compile(r"\$(?:\{([^}\n]*)\}|([A-Za-z_][A-Za-z0-9_]*|[0-9@*#?]))")
_HEX_ESCAPE: Final = re.compile(r"\\x[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One entry that a person can choose.

    ``menu`` are the titles of the submenus that it lies in. ``kernel`` and ``initrds`` are paths as
    GRUB writes them, empty where the entry boots in another way. ``arguments`` are the words
    behind the kernel, quotes taken off. ``variables`` are names that GRUB would replace and that
    stand in them as written; ``conditional`` says that parts of it depend on an ``if``.
    """

    title: str
    menu: tuple[str, ...] = ()
    identifier: str = ""
    kernel: str = ""
    arguments: tuple[str, ...] = ()
    initrds: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    conditional: bool = False

    @property
    def command_line(self) -> str:
        """What the kernel gets behind ``BOOT_IMAGE=…``: words with spaces in quotes, quotes and
        backslashes with a backslash before them (GRUB, lib/cmdline.c)."""
        return " ".join(_passed_on(word) for word in self.arguments)


@dataclass(frozen=True, slots=True)
class GrubConfig:
    """All entries in their order, and what ``set`` says outside of them (last one counts)."""

    entries: tuple[MenuEntry, ...]
    default: str = ""
    fallback: str = ""
    timeout: str = ""

    @property
    def default_entry(self) -> MenuEntry | None:
        """The entry that ``default`` means by number, title or identifier; None if that is unclear.

        Only entries outside of submenus are counted, and nothing is when one stands before them.
        """
        outer = [entry for entry in self.entries if not entry.menu]
        if len(outer) != len(self.entries) or not self.entries:
            return None
        for entry in outer:
            if self.default and self.default in (entry.title, entry.identifier):
                return entry
        text = self.default or "0"
        number = int(text) if text.isdecimal() and len(text) < 6 else len(outer)
        return outer[number] if number < len(outer) else None


def read_grub(data: bytes) -> GrubConfig:
    """Read a grub.cfg; bytes that are not UTF-8 are kept as surrogate escapes.

    Raises :class:`FormatError` for one that is too large, too deep, or ends inside of a quotation
    or block.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise FormatError(f"a GRUB configuration of {len(data)} bytes is larger than any real one")
    walk = _Walk()
    for command in _commands(data.decode("utf-8", "surrogateescape")):
        walk.take(command)
    if walk.depth:
        raise FormatError("a GRUB configuration ends inside of a block")
    settings = walk.settings
    return GrubConfig(
        tuple(walk.entries),
        settings.get("default", ""),
        settings.get("fallback", ""),
        settings.get("timeout", ""),
    )


@dataclass(frozen=True, slots=True)
class _Command:
    """Words up to a line's end, ``{`` or ``}`` (then ``end`` is that brace)."""

    words: tuple[str, ...]
    variables: tuple[str, ...]
    end: str


class _Walk:
    """Goes through the commands and keeps the blocks that are open."""

    def __init__(self) -> None:
        self.entries: list[MenuEntry] = []
        self.settings: dict[str, str] = {}
        # Per open block: the submenu's title, None for an entry, "" for anything else.
        self._blocks: list[str | None] = []
        self._open: dict[str, object] = {}

    @property
    def depth(self) -> int:
        return len(self._blocks)

    def take(self, command: _Command) -> None:
        words = command.words
        if words and None in self._blocks:
            self._inside(words, command.variables)
        elif words and words[0] == "set" and len(words) > 1 and not self._blocks:
            name, _, value = words[1].partition("=")
            self.settings[name] = value
        if command.end == "{":
            self._begin(words)
        elif command.end == "}" and self._blocks:
            if self._blocks.pop() is None:
                self.entries.append(MenuEntry(**self._open))  # type: ignore[arg-type]

    def _begin(self, words: tuple[str, ...]) -> None:
        if len(self._blocks) >= _MAX_DEPTH:
            raise FormatError("blocks in a GRUB configuration lie too deep in each other")
        if not words or words[0] not in _MENUS or None in self._blocks:
            self._blocks.append("")
            return
        title, identifier = _titled(words[1:])
        if words[0] == "submenu":
            self._blocks.append(title)
            return
        menu = tuple(block for block in self._blocks if block)
        self._open = {"title": title, "menu": menu, "identifier": identifier}
        self._blocks.append(None)

    def _inside(self, words: tuple[str, ...], variables: tuple[str, ...]) -> None:
        if words[0] in _LINUX and len(words) > 1:
            self._open |= {"kernel": words[1], "arguments": words[2:], "variables": variables}
        elif words[0] in _INITRD:
            self._open["initrds"] = words[1:]
        elif words[0] in ("if", "elif", "else"):
            self._open["conditional"] = True
            if words[0] == "else" and len(words) > 1:
                self._inside(words[1:], variables)


def _titled(words: tuple[str, ...]) -> tuple[str, str]:
    """Return title and identifier of a menu entry."""
    title, identifier = "", ""
    position = 0
    while position < len(words):
        word = words[position]
        if word in _VALUED or word == "$menuentry_id_option":
            position += 1
            if word in ("--id", "$menuentry_id_option") and position < len(words):
                identifier = words[position]
        elif word.startswith("--id="):
            identifier = word[5:]
        elif not word.startswith("--") and not title:
            title = word
        position += 1
    return title, identifier


def _commands(text: str) -> Iterator[_Command]:
    """Split a script into commands."""
    words: list[str] = []
    variables: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        if character in "\n;{}":
            yield _Command(tuple(words), tuple(variables), character)
            words, variables = [], []
            position += 1
        elif character in " \t\r":
            position += 1
        elif character == "#":
            line_end = text.find("\n", position)
            position = len(text) if line_end < 0 else line_end
        elif text.startswith("\\\n", position):
            position += 2
        else:
            word, position = _word(text, position, variables)
            words.append(word)
    if words:
        yield _Command(tuple(words), tuple(variables), "\n")


def _word(text: str, position: int, variables: list[str]) -> tuple[str, int]:
    """Read one word with its quotes; returns it and the position behind it."""
    parts: list[str] = []
    while position < len(text) and text[position] not in " \t\r\n;{}":
        character = text[position]
        if character == "\\":
            parts.append(text[position + 1 : position + 2].replace("\n", ""))
            position += 2
        elif character == "'":
            end = text.find("'", position + 1)
            if end < 0:
                raise FormatError("a GRUB configuration ends inside of a quotation")
            parts.append(text[position + 1 : end])
            position = end + 1
        elif character == '"':
            part, position = _quoted(text, position + 1, variables)
            parts.append(part)
        elif found := _VARIABLE.match(text, position):
            variables.append(found[1] or found[2] or "")
            parts.append(found[0])
            position = found.end()
        else:
            parts.append(character)
            position += 1
    return "".join(parts), position


def _quoted(text: str, position: int, variables: list[str]) -> tuple[str, int]:
    parts: list[str] = []
    while position < len(text):
        character = text[position]
        if character == '"':
            return "".join(parts), position + 1
        if character == "\\" and text[position + 1 : position + 2] in tuple(_SPECIAL_IN_QUOTES):
            parts.append(text[position + 1].replace("\n", ""))
            position += 2
            continue
        if found := _VARIABLE.match(text, position):
            variables.append(found[1] or found[2] or "")
            parts.append(found[0])
            position = found.end()
            continue
        parts.append(character)
        position += 1
    raise FormatError("a GRUB configuration ends inside of a quotation")


def _passed_on(word: str) -> str:
    escaped, position = [], 0
    while position < len(word):
        if found := _HEX_ESCAPE.match(word, position):
            escaped.append(found[0])
            position = found.end()
            continue
        character = word[position]
        escaped.append(f"\\{character}" if character in "\\'\"" else character)
        position += 1
    text = "".join(escaped)
    return f'"{text}"' if " " in word else text
