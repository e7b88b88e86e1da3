"""Runs a harness on inputs that an engine invents, within bounds, and says what it found.

The engine is atheris (libFuzzer, led by the coverage of our own modules); where it has no wheel, a
plain one changes the seeds at random. Whatever the bytes: only the harness's documented errors may
come out, their messages are fit to print, and no single input costs more than its ceiling.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_imager.errors import LocalImagerError

CORPUS: Final = Path(__file__).parent / "corpus"
# Processor time, so that a busy machine is no finding; the slowest honest input takes a tenth.
MAX_INPUT_S: Final = 4.0
MAX_MEMORY_MIB: Final = 1024
# A sentence for a person: an input must not pour itself into it.
MAX_MESSAGE_CHARACTERS: Final = 4000


class Fault(AssertionError):
    """An input that did something else than to be read or refused."""


@dataclass(frozen=True, slots=True)
class Harness:
    """One parser under attack: ``run`` gets the bytes and may raise only what it documents."""

    name: str
    run: Callable[[bytes], None]
    max_bytes: int = 16 * 1024

    @property
    def seeds(self) -> Path:
        """The folder of real inputs to start from."""
        return CORPUS / self.name


def guarded(harness: Harness) -> Callable[[bytes], None]:
    """Wrap a harness: refusals pass, anything else and anything slow raises."""

    def attack(data: bytes) -> None:
        began_s = time.process_time()
        try:
            harness.run(data)
        except LocalImagerError as error:
            check_refusal(error)
        spent_s = time.process_time() - began_s
        if spent_s > MAX_INPUT_S:
            raise Fault(f"{harness.name}: {len(data)} bytes took {spent_s:.1f} s")

    return attack


def check_refusal(error: LocalImagerError) -> None:
    """Check that an error can be shown to a person and to a program."""
    if not error.message or len(error.message) > MAX_MESSAGE_CHARACTERS:
        raise Fault(f"a message of {len(error.message)} characters") from error
    error.message.encode()
    json.dumps(error.as_dict())


def attack_with_atheris(harness: Harness, *, seconds: int, runs: int) -> None:
    """Fuzz until a bound is reached; the process ends here, with a status other than 0 if found."""
    import atheris

    # What is found to be interesting goes to the first folder, which is not the repository's.
    grown = Path(os.environ.get("FUZZ_CORPUS", tempfile.mkdtemp()), harness.name)
    grown.mkdir(parents=True, exist_ok=True)
    bounds = [f"-max_total_time={seconds}", f"-runs={runs}", f"-max_len={harness.max_bytes}"]
    ceilings = [f"-rss_limit_mb={MAX_MEMORY_MIB}", f"-timeout={int(MAX_INPUT_S * 5)}"]
    quiet = ["-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={os.getcwd()}/"]
    # The same attack each time where a submission is judged; a new one on a developer's machine.
    chosen = ["-seed=1"] if os.environ.get("CI") else []
    argv = [sys.argv[0], *bounds, *ceilings, *quiet, *chosen, str(grown), str(harness.seeds)]
    atheris.Setup(argv, guarded(harness))
    atheris.Fuzz()


def attack_plainly(harness: Harness, *, seconds: int, runs: int, seed: int = 1) -> int:
    """Change seeds at random until a bound is reached; returns how many inputs were tried."""
    attack, source = guarded(harness), random.Random(seed)
    seeds = [path.read_bytes() for path in sorted(harness.seeds.iterdir())]
    until_s, tried = time.monotonic() + seconds, 0
    while tried < runs and time.monotonic() < until_s:
        data = seeds[tried] if tried < len(seeds) else mutated(source, seeds, harness.max_bytes)
        tried += 1
        try:
            attack(data)
        except BaseException:
            Path(f"crash-{harness.name}").write_bytes(data)
            raise
    used_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if used_mib > MAX_MEMORY_MIB:
        raise Fault(f"{harness.name}: {used_mib} MiB of memory were used")
    sys.stdout.write(f"{harness.name}: {tried} inputs\n")
    return tried


def mutated(source: random.Random, seeds: list[bytes], max_bytes: int) -> bytes:
    """Return a seed with a few bytes flipped, cut, doubled, or taken from another seed."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.randint(1, 6)):
        at, length = source.randint(0, len(data)), source.choice((1, 2, 4, 8, 32, 256))
        action = source.randrange(4)
        if action == 0 and at < len(data):
            data[at] = source.choice((0, 0x22, 0x2C, 0x7F, 0x80, 0xFF, source.randrange(256)))
        elif action == 1:
            del data[at : at + length]
        elif action == 2:
            data[at:at] = data[at : at + length] * source.choice((1, 2, 50))
        else:
            other = source.choice(seeds)
            begin = source.randint(0, len(other))
            data[at : at + length] = other[begin : begin + length]
    return bytes(data[:max_bytes])
