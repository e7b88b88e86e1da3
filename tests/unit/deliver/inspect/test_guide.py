"""docs/inspect.md says what the program says: its example has the very fields, and its limits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.deliver.inspect.limits import Limits
from local_imager.deliver.inspect.meaning import Kind, SigningState
from local_imager.formats.source import BytesSource
from tests.talosfiles import uki

GUIDE = (Path(__file__).parents[4] / "docs/inspect.md").read_text()


def shape(value: Any) -> Any:
    """Return the fields of a document; those of parts and facts differ by file."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key not in ("imager", "meta")}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_the_example_has_the_fields_that_are_printed() -> None:
    example, part = (json.loads(text) for text in re.findall("```json\n(.*?)```", GUIDE, re.S))
    printed = inspect_source(BytesSource(uki(reset=False)), "file").as_dict()
    parts = printed.pop("parts")
    assert list(example) == list(printed)
    assert shape(example) == shape(printed)
    known = {
        "name",
        "kind",
        "size_bytes",
        "offset",
        "digest",
        "facts",
        "text",
        "children",
        "unread",
    }
    assert set(part) <= known and set(parts) <= known


def test_words_and_limits() -> None:
    for word in (*get_args(Kind), *get_args(SigningState)):
        assert f"`{word}`" in GUIDE, word
    limits = Limits()
    assert f"at most {limits.parts:,} parts, {limits.depth} levels" in GUIDE
    sizes = (limits.stream_bytes, limits.unpacked_bytes, limits.written_bytes)
    stream, unpacked, written = (f"{size >> 30} GiB" for size in sizes)
    assert f"{stream} from one stream and {unpacked} from all, {written}" in GUIDE


def test_every_field_of_a_known_build_is_named() -> None:
    from local_imager.deliver.inspect.known import Known

    known = Known("n", "a", "v", "s", "k", False)
    row = next(line for line in GUIDE.splitlines() if line.startswith("| `known`"))
    assert re.findall("`([a-z_]+)`", row)[2:] == list(known.as_dict())
