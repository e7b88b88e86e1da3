"""The work of unpacking, told to whoever bounds it for a file as a whole.

Each reader bounds what it unpacks at once, but a small file can lead to the same packed bytes from
a hundred thousand places. Unpacking happens deep inside of readers, on whatever thread asks for
bytes; so the bound is not handed down, where one reader could forget it, but set around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Meter = Callable[[int], None]

# How much longer a byte takes to unpack than one of gzip or zstd does, roughly.
XZ_WORK: Final = 4
_METER: Final[ContextVar[Meter | None]] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Let :func:`charge` tell this meter meanwhile, in this thread and those given its context."""
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


def charge(work: int) -> None:
    """Tell of unpacking, in bytes that are quick to unpack; raises what the meter raises."""
    meter = _METER.get()
    if meter is not None:
        meter(work)
