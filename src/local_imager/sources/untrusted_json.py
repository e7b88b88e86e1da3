"""Strict, bounded reading of JSON that came with a signature.

One reading only: UTF-8, no duplicate keys, no unknown keys, no numbers where text is meant. Every
failure is a :class:`Rejected`; nothing else leaves this module, whatever the bytes are.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Any, Final

from local_imager.errors import SourceError
from local_imager.oci.model import load_json_object
from local_imager.sources.reasons import Reason, Rejected

# Honest documents nest a dozen levels (bundle in envelope in statement); each level costs stack.
MAX_DEPTH: Final = 32

Document = Mapping[str, Any]


def malformed(what: str, problem: str) -> Rejected:
    """Make the rejection of a document that breaks its format."""
    return Rejected(Reason.MALFORMED, f"{what}: {problem}")


def parse_object(untrusted_data: bytes, what: str, max_bytes: int) -> Document:
    """Parse bytes into an object; raises :class:`Rejected` (malformed, too-large)."""
    if len(untrusted_data) > max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{what} is larger than {max_bytes} bytes")
    try:
        text = untrusted_data.decode("utf-8")
        # The json module would guess UTF-16 and UTF-32 from zero bytes; other readers do not.
        if "\0" in text or text.startswith("\ufeff"):
            raise malformed(what, "is not plain UTF-8 JSON")
        document = load_json_object(untrusted_data, what)
    except UnicodeDecodeError as error:
        raise malformed(what, "is not UTF-8") from error
    except SourceError as error:
        raise Rejected(Reason.MALFORMED, error.message) from error
    _check_values(document, what, MAX_DEPTH)
    return document


def _check_values(value: object, what: str, levels_left: int) -> None:
    if levels_left == 0:
        raise malformed(what, "nests too deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(key, what, levels_left - 1)
            _check_values(item, what, levels_left - 1)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, what, levels_left - 1)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise malformed(what, "holds half a surrogate pair") from error


def only_keys(document: Document, allowed: Collection[str], what: str) -> None:
    """Refuse a key that the format does not have (as protobuf JSON readers do)."""
    unknown = [key for key in document if key not in allowed]
    if unknown:
        raise malformed(what, f"has the unknown field {unknown[0]!r}")


def text_field(document: Document, key: str, what: str, default: str | None = None) -> str:
    """Return a text field; a missing one is refused unless there is a default."""
    value = document.get(key, default)
    if not isinstance(value, str):
        raise malformed(what, f"{key} is missing or not a text")
    return value


def integer_field(document: Document, key: str, what: str) -> int:
    """Return a 64-bit count; protobuf JSON writes it as text, leaves zero out."""
    value = document.get(key, 0)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise malformed(what, f"{key} is not a count")
    return value


def object_field(document: Document, key: str, what: str) -> Document:
    """Return a field that must be an object."""
    value = document.get(key)
    if not isinstance(value, dict):
        raise malformed(what, f"{key} is missing or not an object")
    return value


def holder_field(document: Document, key: str, what: str, *allowed: str) -> Document:
    """Return a field that must be an object with no other keys than these."""
    holder = object_field(document, key, what)
    only_keys(holder, allowed, what)
    return holder


def objects_field(document: Document, key: str, what: str, max_items: int) -> tuple[Document, ...]:
    """Return a list of objects, empty when the field is left out."""
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise malformed(what, f"{key} is not a list of objects")
    if len(value) > max_items:
        raise Rejected(Reason.TOO_LARGE, f"{what}: {key} has more than {max_items} items")
    return tuple(value)


def decode_base64(untrusted_text: str, what: str, max_bytes: int) -> bytes:
    """Decode standard base64 with padding; anything else is refused."""
    if len(untrusted_text) > max_bytes * 4 // 3 + 4:
        raise Rejected(Reason.TOO_LARGE, f"{what} is larger than {max_bytes} bytes")
    try:
        return base64.b64decode(untrusted_text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise malformed(what, "is not base64") from error


def bytes_field(document: Document, key: str, what: str, max_bytes: int) -> bytes:
    """Return a base64 field, decoded."""
    return decode_base64(text_field(document, key, what), f"{what}: {key}", max_bytes)
