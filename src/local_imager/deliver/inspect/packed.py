"""Compressed files as parts: what was unpacked is the only child, ``content``."""

from __future__ import annotations

from local_imager.deliver.inspect.parts import Fact
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.packing import HEAD_BYTES, packing_of, unpack, xz_check_of
from local_imager.formats.source import Source


def open_compressed(walk: Walk, source: Source) -> Inside:
    """Unpack a stream once, and return what is in it."""
    head = source.read(0, min(HEAD_BYTES, source.size_bytes))
    packing = packing_of(head)
    facts: dict[str, Fact] = {"packing": packing}
    if packing == "xz":
        facts["check"] = xz_check_of(head)
    chunks = unpack(source, packing, max_bytes=walk.limits.stream_bytes)
    with walk.unpacked(chunks) as content:
        return Inside(facts=facts, children=(walk.part(content, "content"),))
