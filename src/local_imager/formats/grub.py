"""Menu entries of a grub.cfg, told without running it.

Words, quotes and blocks follow the GRUB manual ("Shell-like scripting"); conditions and variables
are not evaluated, and an entry says when it has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from local_imager.formats.source import FormatError

# The largest that grub-mkconfig writes has some ten thousand.
MAX_CONFIG_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32
_LINUX: Final = ("linux", "linuxefi", "linux16")
_INITRD: Final = ("initrd", "initrdefi", "initrd16")
_MENUS: Final = ("menuentry", "submenu")
# What may stand before a command on the same line, and what begins and ends a condition or loop.
_BEFORE: Final = ("then", "else", "do")
_BEGINS: Final = ("if", "while", "until", "for")
_ENDS: Final = ("fi", "done")
# These bring entries from elsewhere.
_ELSEWHERE: Final = ("source", ".", "blscfg")
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
    stand in them as written; ``conditional`` says that parts of it depend on an ``if``, and
    ``optional`` that it is in the menu only where a condition holds.
    """

    title: str
    menu: tuple[str, ...] = ()
    identifier: str = ""
    kernel: str = ""
    arguments: tuple[str, ...] = ()
    initrds: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    conditional: bool = False
    optional: bool = False

    @property
    def command_line(self) -> str:
        """What the kernel gets behind ``BOOT_IMAGE=…``: words with spaces in quotes, quotes and
        backslashes with a backslash before them (GRUB, lib/cmdline.c)."""
        return " ".join(_passed_on(word) for word in self.arguments)


@dataclass(frozen=True, slots=True)
class Submenu:
    """A menu behind a line of another one, or (without a title) lines that another file brings."""

    title: str
    identifier: str
    rows: tuple[MenuEntry | Submenu, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class GrubConfig:
    """All entries in their order, those in submenus too; ``rows`` is the menu as it is shown.

    ``default``, ``fallback`` and ``timeout`` are what ``set`` says outside of menus (last one
    counts). ``open_default`` says in a few words why ``default`` is not known before GRUB runs.
    """

    entries: tuple[MenuEntry, ...]
    rows: tuple[MenuEntry | Submenu, ...] = ()
    default: str = ""
    fallback: str = ""
    timeout: str = ""
    open_default: str = ""

    @property
    def default_entry(self) -> MenuEntry | None:
        """The entry that ``default`` means; None if that is unclear."""
        return self.choice[0]

    @property
    def choice(self) -> tuple[MenuEntry | None, str]:
        """The entry that ``default`` means, or None and why it is unclear (empty for no entries).

        ``default`` is a number, title or identifier, for what lies in submenus several with ``>``
        between; what is none means the first line (GRUB manual, "default"; normal/menu.c).
        """
        if self.open_default and self.rows:
            return None, self.open_default
        rows = self.rows
        for name in _path_of(self.default):
            row, why = _chosen(rows, name)
            if not isinstance(row, Submenu):
                return row, why
            rows = row.rows
        return None, "its default is a submenu, where nothing starts by itself" if self.rows else ""


def _path_of(default: str) -> list[str]:
    """Split what ``default`` says at each ``>``; two of them stand for one in a title."""
    return [name.replace("\0", ">") for name in default.replace(">>", "\0").split(">")]


def _chosen(
    rows: tuple[MenuEntry | Submenu, ...], name: str
) -> tuple[MenuEntry | Submenu | None, str]:
    """Return the row of a menu that a part of ``default`` means, or why it is unclear."""
    found = next((n for n, row in enumerate(rows) if name in (row.title, row.identifier)), 0)
    if name.isdecimal():
        found = int(name) if len(name) < 6 and int(name) < len(rows) else 0
    elif name and rows and name in (rows[found].title, rows[found].identifier):
        row = rows[found]
        return (row, "") if not row.optional else (None, "conditions decide whether it is there")
    if any(row.optional for row in rows[: found + 1]):
        return None, "conditions decide which entries its menu has"
    return (rows[found], "") if rows else (None, "")


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
        tuple(walk.rows),
        settings.get("default", ""),
        settings.get("fallback", ""),
        settings.get("timeout", ""),
        walk.open_default,
    )


@dataclass(frozen=True, slots=True)
class _Command:
    """Words up to a line's end, ``{`` or ``}`` (then ``end`` is that brace)."""

    words: tuple[str, ...]
    variables: tuple[str, ...]
    end: str


@dataclass
class _Block:
    """What a brace began: a submenu with its rows, an entry, or anything else."""

    kind: str
    title: str = ""
    identifier: str = ""
    optional: bool = False
    rows: list[MenuEntry | Submenu] = field(default_factory=list)


class _Walk:
    """Goes through the commands and keeps the blocks that are open."""

    def __init__(self) -> None:
        self.entries: list[MenuEntry] = []
        self.rows: list[MenuEntry | Submenu] = []
        self.settings: dict[str, str] = {}
        self.open_default = ""
        self._blocks: list[_Block] = []
        self._conditions = 0
        self._open: dict[str, object] = {}

    @property
    def depth(self) -> int:
        return len(self._blocks)

    @property
    def _in_entry(self) -> bool:
        return bool(self._blocks) and any(block.kind == "menuentry" for block in self._blocks)

    @property
    def _is_optional(self) -> bool:
        return self._conditions > 0 or any(block.kind == "" for block in self._blocks)

    def take(self, command: _Command) -> None:
        words = command.words
        if words and self._in_entry:
            self._inside(words, command.variables)
        elif words:
            words = self._outside(words, command.variables)
        if command.end == "{":
            self._begin(words)
        elif command.end == "}" and self._blocks:
            self._end(self._blocks.pop())

    def _outside(self, words: tuple[str, ...], variables: tuple[str, ...]) -> tuple[str, ...]:
        """Take a command that is in no entry; returns its words without a keyword before them."""
        while words and words[0] in _BEFORE:
            words = words[1:]
        first = words[0] if words else ""
        if first in _BEGINS:
            self._conditions += 1
        elif first in _ENDS:
            self._conditions = max(self._conditions - 1, 0)
        elif first in _ELSEWHERE:
            self._add(Submenu("", "", (), True))
        elif not self._blocks and "=" in (assigned := "".join(words[1:2]) or first):
            self._set(assigned, variables, is_command=first == "set" or len(words) == 1)
        return words

    def _set(self, text: str, variables: tuple[str, ...], *, is_command: bool) -> None:
        name, _, value = text.partition("=")
        if not is_command:
            return
        self.settings[name] = value
        if name == "default":
            self.open_default = ""
            if variables:
                self.open_default = f"its default is what ${variables[0]} holds when it runs"
            elif self._conditions:
                self.open_default = "conditions decide over its default"

    def _begin(self, words: tuple[str, ...]) -> None:
        if len(self._blocks) >= _MAX_DEPTH:
            raise FormatError("blocks in a GRUB configuration lie too deep in each other")
        if not words or words[0] not in _MENUS or self._in_entry:
            self._blocks.append(_Block(""))
            return
        title, identifier = _titled(words[1:])
        block = _Block(words[0], title, identifier, self._is_optional)
        if block.kind == "menuentry":
            menu = tuple(one.title for one in self._blocks if one.title)
            self._open = {"title": title, "menu": menu, "identifier": identifier}
            self._open["optional"] = block.optional
        self._blocks.append(block)

    def _end(self, block: _Block) -> None:
        if block.kind == "menuentry":
            entry = MenuEntry(**self._open)  # type: ignore[arg-type]
            self.entries.append(entry)
            self._add(entry)
        elif block.kind == "submenu":
            rows = tuple(block.rows)
            self._add(Submenu(block.title, block.identifier, rows, block.optional))

    def _add(self, row: MenuEntry | Submenu) -> None:
        """Put a row into the menu that is open."""
        menus = [block.rows for block in self._blocks if block.kind == "submenu"]
        (menus[-1] if menus else self.rows).append(row)

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
