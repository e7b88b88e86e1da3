"""Ways to damage a bundle, and what a reader says of it, for the tests of reading."""

from __future__ import annotations

import random
from collections.abc import Callable

from local_imager.deliver.bundle.form.tarform import member_header, padding
from local_imager.deliver.bundle.reading.partstream import CHUNK_BYTES
from local_imager.deliver.bundle.reading.reader import LookOnly, PartReading, read_part
from local_imager.events import NULL_SINK
from tests.bundlefiles import (
    IMAGES,
    Member,
    make_sample,
    pax_header,
    strange_header,
    stream_of,
    with_checksum,
)

SAMPLE = make_sample()
NOISE = random.Random(1)
# Layers that fill several buffers, begin anywhere in one, and fill exactly one.
LARGE = make_sample(
    {
        "a1": NOISE.randbytes(3 * CHUNK_BYTES + 17),
        "s1": NOISE.randbytes(CHUNK_BYTES),
        "s2": NOISE.randbytes(100_000),
        "b1": NOISE.randbytes(700),
        "b2": b"",
    }
)
ONE, TWO = IMAGES
BOTH, ONLY_ONE, ONLY_TWO = frozenset(IMAGES), frozenset({ONE}), frozenset({TWO})
A1, S1, B1, B2 = (SAMPLE.member_of(name) for name in ("a1", "s1", "b1", "b2"))
Members = list[Member]
Found = list[tuple[str, str, frozenset[str]]]


def read(data: bytes) -> PartReading:
    return read_part(stream_of(data), "test.tar", LookOnly(), NULL_SINK)


def found(data: bytes) -> Found:
    """Kind, member and what is affected of every fault."""
    reading = read(data)
    for fault in reading.faults:
        assert fault.text and fault.text.isprintable() and len(fault.text) < 500
        assert len(fault.affects) == len(set(fault.affects))
    return [(fault.kind, fault.member, frozenset(fault.affects)) for fault in reading.faults]


def at(members: Members, name: str) -> Member:
    return next(member for member in members if member.name == name)


def before(members: Members, name: str, *new: Member) -> None:
    place = members.index(at(members, name))
    members[place:place] = new


def flip(name: str, position: int = 0) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        member = at(members, name)
        data = bytearray(member.content)
        data[position] ^= 4
        member.content = bytes(data)

    return change


def drop(name: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members.remove(at(members, name))

    return change


def add(*new: Member, to: str = S1) -> Callable[[Members], None]:
    """Put members before another one."""

    def change(members: Members) -> None:
        before(members, to, *new)

    return change


def header(name: str, change_header: Callable[[bytes], bytes]) -> Callable[[Members], None]:
    """Change a member's header."""

    def change(members: Members) -> None:
        member = at(members, name)
        member.header = change_header(member_header(member.name, len(member.content)))

    return change


def swap(one: str, other: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        first, second = members.index(at(members, one)), members.index(at(members, other))
        members[first], members[second] = members[second], members[first]

    return change


def replaced(name: str, *new: Member) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        place = members.index(at(members, name))
        members[place : place + 1] = new

    return change


def put(begin: int, data: bytes) -> Callable[[bytes], bytes]:
    """Write into a header and mend its checksum, as somebody would who means it."""
    return lambda block: with_checksum(block[:begin] + data + block[begin + len(data) :])


def fill(name: str, data: bytes) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        member = at(members, name)
        filling = bytes(padding(len(member.content)))
        member.filling = data + filling[len(data) :]

    return change


def special(name: str, kind: bytes, link: str = "") -> Member:
    return Member(name, b"", strange_header(name, type=kind, linkname=link))


def extended(records: dict[str, str], name: str = "pax") -> Member:
    """An extended header as a member of its own: its bytes stand in the header's place."""
    return Member(name, b"", pax_header(name, records))


def none() -> frozenset[str]:
    return frozenset()
