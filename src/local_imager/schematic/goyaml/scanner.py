"""Characters to tokens: indentation, simple keys and which token begins where.

Tokens are looked ahead by two more than the grammar needs, as the Go library does for the sake
of its comments; so an error shortly after the end of the first document counts.
"""

from __future__ import annotations

from local_imager.schematic.goyaml.comments import skip_comment_block, skip_line_comment
from local_imager.schematic.goyaml.cursor import BLANKS, BLANKS_BREAKS_OR_END, BREAKS, Cursor
from local_imager.schematic.goyaml.limits import MAX_DEPTH
from local_imager.schematic.goyaml.properties import scan_anchor, scan_directive, scan_tag
from local_imager.schematic.goyaml.reader import END
from local_imager.schematic.goyaml.scalars import scan_block, scan_plain, scan_quoted
from local_imager.schematic.goyaml.tokens import Mark, Token, TokenKind

_EXTRA_LOOKAHEAD_TOKENS = 2
_DONE_TOKENS_KEPT = 64

_FLOW_STARTS = {"[": TokenKind.FLOW_SEQUENCE_START, "{": TokenKind.FLOW_MAPPING_START}
_FLOW_ENDS = {"]": TokenKind.FLOW_SEQUENCE_END, "}": TokenKind.FLOW_MAPPING_END}
_NOT_PLAIN_START = BLANKS_BREAKS_OR_END + "-?:,[]{}#&*!|>'\"%@`"


class _SimpleKey:
    """A token that may turn out to be a key when ``:`` follows on its line."""

    __slots__ = ("flow_level", "mark", "required", "token_number")

    def __init__(self, required: bool, flow_level: int, token_number: int, mark: Mark) -> None:
        self.required = required
        self.flow_level = flow_level
        self.token_number = token_number
        self.mark = mark


_NO_KEY = _SimpleKey(False, 0, 0, Mark(0, 0))


class Scanner:
    """The stream of tokens of one input. ``peek`` and ``next`` raise YamlError."""

    def __init__(self, untrusted_data: bytes) -> None:
        self._cursor = Cursor(untrusted_data)
        self._started = False
        self._flow_level = 0
        self._queue: list[Token] = []
        self._head = 0  # index in the queue of the next token
        self._taken = 0  # how many tokens were handed out
        self._ready = False
        self._indent = -1
        self._indents: list[int] = []
        self._key_allowed = True
        self._key_possible = False
        self._key = _NO_KEY
        self._outer_keys: list[_SimpleKey] = []

    def peek(self) -> Token:
        """Return the next token and leave it there."""
        if not self._ready:
            self._fetch_enough()
        return self._queue[self._head]

    def next(self) -> Token:
        """Return the next token and move on."""
        token = self.peek()
        self._ready = False
        self._taken += 1
        self._head += 1
        if self._head > _DONE_TOKENS_KEPT:
            del self._queue[: self._head - 1]
            self._head = 1
        return token

    def _fetch_enough(self) -> None:
        """Fetch until the next token is certain: no simple key may still come before it."""
        while True:
            if len(self._queue) - self._head > _EXTRA_LOOKAHEAD_TOKENS:
                if self._outer_keys:
                    first_key = self._outer_keys[0].token_number
                elif self._key_possible:
                    first_key = self._key.token_number
                else:
                    break
                if self._taken != first_key:
                    break
            self._fetch()
        self._ready = True

    def _fetch(self) -> None:
        cursor = self._cursor
        cursor.need(1)
        if not self._started:
            self._started = True
            self._append(Token(TokenKind.STREAM_START, cursor.mark))
            return
        self._skip_to_next_token()
        self._unroll_indent(cursor.column)
        cursor.need(4)
        current = cursor.char()
        if current == END:
            self._fetch_stream_end()
        elif cursor.column == 1 and current == "%":
            self._leave_document()
            self._append(scan_directive(cursor))
        elif cursor.at_document_indicator():
            self._leave_document()
            is_start = current == "-"
            kind = TokenKind.DOCUMENT_START if is_start else TokenKind.DOCUMENT_END
            self._append_indicator(kind, 3)
        else:
            self._fetch_content(current, cursor.char(1))
            if self._queue[-1].kind is not TokenKind.BLOCK_ENTRY:
                skip_line_comment(cursor)

    def _fetch_content(self, current: str, following: str) -> None:
        separated = following in BLANKS_BREAKS_OR_END
        if current in _FLOW_STARTS:
            self._fetch_flow_start(_FLOW_STARTS[current])
        elif current in _FLOW_ENDS:
            self._fetch_flow_end(_FLOW_ENDS[current])
        elif current == ",":
            self._remove_key()
            self._key_allowed = True
            self._append_indicator(TokenKind.FLOW_ENTRY)
        elif current == "-" and separated:
            self._fetch_block_entry()
        elif current == "?" and separated:
            self._fetch_key()
        elif current == ":" and (separated or (self._flow_level and not self._in_flow_sequence())):
            self._fetch_value()
        else:
            self._fetch_node_part(current, following)

    def _fetch_node_part(self, current: str, following: str) -> None:
        cursor = self._cursor
        if current in "|>" and not self._flow_level:
            self._remove_key()
            self._key_allowed = True
            self._append(scan_block(cursor, current == "|", self._indent))
            return
        begins_plain = current not in _NOT_PLAIN_START or (
            following not in BLANKS if current == "-" else _may_begin_plain(current, following)
        )
        if not begins_plain and current not in "*&!'\"":
            hint = "; indent with spaces, not with tabs" if current == "\t" else ""
            cursor.fail(f"the character {current!r} cannot begin a value here{hint}")
        self._save_key()
        self._key_allowed = False
        if current in "*&":
            kind = TokenKind.ALIAS if current == "*" else TokenKind.ANCHOR
            self._append(scan_anchor(cursor, kind))
        elif current == "!":
            self._append(scan_tag(cursor))
        elif current in "'\"":
            self._append(scan_quoted(cursor, current))
        else:
            token, crossed_line = scan_plain(cursor, self._indent + 1, self._flow_level > 0)
            self._append(token)
            if crossed_line:
                self._key_allowed = True

    def _skip_to_next_token(self) -> None:
        cursor = self._cursor
        while True:
            cursor.need(1)
            if cursor.column == 1 and cursor.starts_with_bom:
                cursor.skip()
            cursor.need(1)
            while cursor.char() == " " or (
                cursor.char() == "\t" and (self._flow_level or not self._key_allowed)
            ):
                cursor.skip()
                cursor.need(1)
            if cursor.char() == "#":
                skip_comment_block(cursor)
            if cursor.char() not in BREAKS:
                return
            cursor.need(2)
            cursor.take_break()
            if not self._flow_level:
                self._key_allowed = True

    def _fetch_stream_end(self) -> None:
        cursor = self._cursor
        if cursor.column != 1:
            cursor.column = 1
            cursor.line += 1
        self._leave_document()
        self._outer_keys.clear()
        self._append(Token(TokenKind.STREAM_END, cursor.mark))

    def _leave_document(self) -> None:
        self._unroll_indent(-1)
        self._remove_key()
        self._key_allowed = False

    def _fetch_flow_start(self, kind: TokenKind) -> None:
        self._save_key()
        self._flow_level += 1
        self._check_depth(self._flow_level)
        if self._key_possible:
            self._outer_keys.append(self._key)
        self._key = _NO_KEY  # still "possible", but on no line: so the library leaves it
        self._key_allowed = True
        self._append_indicator(kind)

    def _fetch_flow_end(self, kind: TokenKind) -> None:
        self._remove_key()
        if self._flow_level:
            self._flow_level -= 1
            if self._outer_keys and self._outer_keys[-1].flow_level == self._flow_level:
                self._key = self._outer_keys.pop()
                self._key_possible = True
        self._key_allowed = False
        self._append_indicator(kind)

    def _fetch_block_entry(self) -> None:
        cursor = self._cursor
        if not self._flow_level:
            if not self._key_allowed:
                cursor.fail("a list item ('- ') cannot begin here")
            self._roll_indent(cursor.column, None, TokenKind.BLOCK_SEQUENCE_START, cursor.mark)
        self._remove_key()
        self._key_allowed = True
        self._append_indicator(TokenKind.BLOCK_ENTRY)

    def _fetch_key(self) -> None:
        cursor = self._cursor
        if not self._flow_level:
            if not self._key_allowed:
                cursor.fail("a key ('? ') cannot begin here")
            self._roll_indent(cursor.column, None, TokenKind.BLOCK_MAPPING_START, cursor.mark)
        self._remove_key()
        self._key_allowed = not self._flow_level
        self._append_indicator(TokenKind.KEY)

    def _fetch_value(self) -> None:
        cursor = self._cursor
        key = self._key
        if self._key_possible and key.mark.line == cursor.line:
            self._insert(key.token_number, Token(TokenKind.KEY, key.mark))
            start = TokenKind.BLOCK_MAPPING_START
            self._roll_indent(key.mark.column, key.token_number, start, key.mark)
            self._key_possible = False
            key.required = False
            self._key_allowed = False
        else:
            if not self._flow_level:
                if not self._key_allowed:
                    cursor.fail(
                        "a mapping value (': ') cannot stand here; quote the text if ': '"
                        " is part of it"
                    )
                start = TokenKind.BLOCK_MAPPING_START
                self._roll_indent(cursor.column, None, start, cursor.mark)
            self._key_allowed = not self._flow_level
        self._append_indicator(TokenKind.VALUE)

    def _in_flow_sequence(self) -> bool:
        before = self._queue[-1].kind
        return before in (TokenKind.FLOW_ENTRY, TokenKind.FLOW_SEQUENCE_START)

    def _save_key(self) -> None:
        """Remember the place if a simple key may begin here."""
        if not self._key_allowed:
            return
        cursor = self._cursor
        required = not self._flow_level and self._indent == cursor.column
        self._remove_key()
        number = self._taken + len(self._queue) - self._head
        self._key_possible = True
        self._key = _SimpleKey(required, self._flow_level, number, cursor.mark)

    def _remove_key(self) -> None:
        if self._key.required:
            self._cursor.fail("a key without ':' stands here", self._key.mark)
        self._key_possible = False

    def _roll_indent(self, column: int, number: int | None, kind: TokenKind, mark: Mark) -> None:
        """Open a block collection if the column lies further in."""
        if self._flow_level or self._indent >= column:
            return
        self._indents.append(self._indent)
        self._indent = column
        self._check_depth(len(self._indents))
        token = Token(kind, mark)
        if number is None:
            self._append(token)
        else:
            self._insert(number, token)

    def _unroll_indent(self, column: int) -> None:
        """Close the block collections that lie further in than the column."""
        if self._flow_level:
            return
        while self._indent > column:
            self._append(Token(TokenKind.BLOCK_END, self._cursor.mark))
            self._indent = self._indents.pop()

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._cursor.fail(f"nested deeper than {MAX_DEPTH} levels")

    def _append(self, token: Token) -> None:
        self._queue.append(token)

    def _append_indicator(self, kind: TokenKind, length: int = 1) -> None:
        mark = self._cursor.mark
        self._cursor.skip(length)
        self._append(Token(kind, mark))

    def _insert(self, number: int, token: Token) -> None:
        """Put the token before the one with this number, counted from the start of the input."""
        self._queue.insert(self._head + number - self._taken, token)


def _may_begin_plain(current: str, following: str) -> bool:
    return current in "?:" and following not in BLANKS_BREAKS_OR_END
