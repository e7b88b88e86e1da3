"""Attack parsers: ``python -m tests.fuzz NAME… --seconds N``; without a name all are listed.

An input that is a finding is written to the current directory; ``--input FILE`` tries it again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

Attack = Callable[[str], None]


def main() -> int:
    """Read the command line and run the harnesses; 1 when one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="harnesses to run, or: all")
    parser.add_argument("--seconds", type=int, default=60, help="stop after this time (60)")
    parser.add_argument("--runs", type=int, default=1 << 30, help="stop after this many inputs")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    parser.add_argument("--engine", choices=["atheris", "plain"], help="atheris, where there is it")
    parser.add_argument("--input", help="try this one file in place of invented ones")
    parser.add_argument("--logs", type=Path, help="write what each says to NAME.log in this folder")
    options = parser.parse_args()
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = options.engine or ("atheris" if has_atheris else "plain")
    instrumented: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if engine == "atheris" and options.names and not options.input:
        import atheris

        instrumented = atheris.instrument_imports(include=["local_imager", "json", "yaml"])
    # Coverage is followed only in modules that are imported here, for the first time.
    with instrumented:
        from tests.fuzz.harnesses import HARNESSES
    from tests.fuzz import driver

    names = list(HARNESSES) if options.names == ["all"] else options.names
    if not names:
        sys.stdout.write("".join(f"{name}\n" for name in HARNESSES))
        return 0

    def attack(name: str) -> None:
        if options.input:
            driver.guarded(HARNESSES[name])(Path(options.input).read_bytes())
            return
        start = driver.attack_with_atheris if engine == "atheris" else driver.attack_plainly
        start(HARNESSES[name], seconds=options.seconds, runs=options.runs)

    statuses = forked(names, attack, options.jobs, options.logs)
    faults = [name for name in names if statuses[name]]
    sys.stdout.write(f"{len(names)} attacked, found something in: {', '.join(faults) or 'none'}\n")
    return 1 if faults else 0


def forked(names: list[str], attack: Attack, jobs: int, logs: Path | None) -> Mapping[str, int]:
    """Run each attack in a process of its own, which the engine ends; returns exit statuses."""
    running: dict[int, str] = {}
    statuses: dict[str, int] = {}

    def await_one() -> None:
        process, status = os.wait()
        statuses[running.pop(process)] = os.waitstatus_to_exitcode(status)

    # The engine ends its process at once, so nothing in there cleans up; and nothing may, twice.
    tempfile.tempdir = tempfile.mkdtemp(prefix="fuzz-")
    try:
        for name in names:
            if len(running) >= jobs:
                await_one()
            sys.stdout.flush()
            process = os.fork()
            if process == 0:
                if logs is not None:
                    log = os.open(logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    os.dup2(log, 1)
                    os.dup2(log, 2)
                child(attack, name)
            running[process] = name
        while running:
            await_one()
    finally:
        shutil.rmtree(tempfile.tempdir)
    return statuses


def child(attack: Attack, name: str) -> NoReturn:
    """Run the attack and end this process without what its parent would clean up."""
    status = 1
    try:
        attack(name)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
