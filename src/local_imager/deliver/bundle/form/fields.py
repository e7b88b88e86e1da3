"""Taking an untrusted JSON object apart field by field; what is left over is a fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from local_imager.errors import InputError, SourceError
from local_imager.oci.model import Digest

MAX_TEXT: Final = 1024
MAX_TEXTS: Final = 4096
MAX_SIZE_BYTES: Final = 1 << 50


def malformed(what: str, problem: str, *, hint: str = "") -> SourceError:
    """Make the error of a document that is not as local-imager writes it."""
    return SourceError(f"{what} is not valid: {problem}", hint=hint, code="malformed")


class Fields:
    """The fields of one object; each is taken once, and :meth:`end` refuses what is left."""

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self._values, self.what = dict(values), what

    def _fault(self, key: str, problem: str) -> SourceError:
        return malformed(self.what, f"{key[:80]!r} {problem}")

    def keys(self) -> frozenset[str]:
        """Return the keys that were not taken yet."""
        return frozenset(self._values)

    def has(self, key: str) -> bool:
        """Say whether a field is there that may be left out."""
        return key in self._values

    def take(self, key: str) -> Any:
        """Take a value, whatever it is."""
        if key not in self._values:
            raise self._fault(key, "is missing")
        return self._values.pop(key)

    def text(self, key: str) -> str:
        """Take a line of printable text that is not empty."""
        return self._text(key, self.take(key))

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            raise self._fault(key, f"wants a line of at most {MAX_TEXT} printable characters")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of lines of text."""
        return tuple(self._text(key, value) for value in self.list(key, MAX_TEXTS))

    def number(self, key: str, *, least: int = 0, most: int = MAX_SIZE_BYTES) -> int:
        """Take a whole number within bounds."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._fault(key, f"wants a whole number from {least} to {most}")
        return value

    def size(self, key: str) -> int:
        """Take a number of bytes."""
        return self.number(key)

    def flag(self, key: str, *, default: bool) -> bool:
        """Take a truth value that is left out when it is the default."""
        if key not in self._values:
            return default
        value = self.take(key)
        if not isinstance(value, bool):
            raise self._fault(key, "wants true or false")
        return value

    def digest(self, key: str) -> Digest:
        """Take a digest."""
        value = self.take(key)
        try:
            return Digest.parse(value if isinstance(value, str) else "")
        except InputError as error:
            raise self._fault(key, "wants sha256: and 64 hex digits") from error

    def list(self, key: str, most: int) -> list[Any]:
        """Take a list of bounded length."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._fault(key, f"wants a list of at most {most} entries")
        return value

    def object(self, key: str) -> Fields:
        """Take an object."""
        value = self.take(key)
        if not isinstance(value, dict):
            raise self._fault(key, "wants an object")
        return Fields(value, self.what)

    def objects(self, key: str, most: int) -> Iterator[Fields]:
        """Take a list of objects, one after the other; each is given up when the next comes."""
        values = self.list(key, most)
        values.reverse()
        while values:
            value = values.pop()
            if not isinstance(value, dict):
                raise self._fault(key, "wants objects")
            yield Fields(value, self.what)

    def end(self) -> None:
        """Refuse a field that the format does not have."""
        if self._values:
            raise self._fault(min(self._values), "is not a field that is known")
