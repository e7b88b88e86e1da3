"""`python3 -m lab.bench_matrix`: a matrix of 3 schematics × 2 versions × 4 ISOs, cold and cached.

Measured while the program runs: how busy the processors were (/proc/stat, all that the machine
does), the wall time, the program's own peak memory, and by how much the machine's available memory
sank at most, which is what program, engine and containers took together. The lab's engine is
expected to run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.bench_figures import show
from lab.console import LabError, say
from lab.place import find_place

ROOT = Path(__file__).resolve().parent.parent
SCHEMATICS = ("vanilla", "extensions", "kernel-args")
VERSIONS = ("v1.12.1", "v1.13.0")
REALISTIC_VERSIONS = ("v1.13.0",)
ASSETS = ("metal-ARCH.iso", "nocloud-ARCH.iso")
ARCHES = ("amd64", "arm64")
_EVERY_S = 0.2


@dataclass
class Machine:
    """What the machine did between ``__enter__`` and ``__exit__``."""

    busy_share: float = 0.0
    memory_mb: float = 0.0
    wall_s: float = 0.0
    _lowest: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Machine":
        self._began_s, self._before = time.monotonic(), ticks()
        self._free = self._lowest = available_bytes()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._lowest = min(self._lowest, available_bytes())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        busy, total = (b - a for a, b in zip(self._before, ticks(), strict=True))
        self.busy_share = busy / max(1, total)
        self.memory_mb = (self._free - self._lowest) / 1e6
        self.wall_s = time.monotonic() - self._began_s


def ticks() -> tuple[int, int]:
    """Return busy and all ticks of all processors; waiting for a disk is not busy."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def available_bytes() -> int:
    """Return MemAvailable."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise LabError("/proc/meminfo does not say what is available")


def write_matrix(path: Path, versions: tuple[str, ...]) -> int:
    """Write the matrix file and return how many cells it has."""
    document = {
        "schematics": [str(ROOT / "schematics" / f"{name}.yaml") for name in SCHEMATICS],
        "versions": list(versions),
        "arches": list(ARCHES),
        "assets": list(ASSETS),
    }
    path.write_text(json.dumps(document, indent=1))
    return len(SCHEMATICS) * len(versions) * len(ARCHES) * len(ASSETS)


def run(argv: list[str]) -> tuple[Machine, float]:
    """Run the program to its end; return what the machine did and the program's own peak MB."""
    with Machine() as machine:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LabError(f"the matrix ended with {process.returncode}: {said[-800:]}")
    return machine, usage.ru_maxrss * 1024 / 1e6


def main() -> int:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.bench_matrix", description=__doc__)
    parser.add_argument("--realistic", action="store_true", help="images that weigh what real do")
    parser.add_argument("--jobs", default="", help="cells at once, several to compare: 1,2,3")
    parser.add_argument("--memory", default="", help="limit of all containers together")
    parser.add_argument("--versions", default="", help="Talos versions, with commas")
    options = parser.parse_args()
    place = find_place()
    config = place.root / ("lab-realistic.toml" if options.realistic else "lab.toml")
    versions = tuple(options.versions.split(",")) if options.versions else VERSIONS
    if options.realistic:
        versions = REALISTIC_VERSIONS
    head = ["cells at once", "state", "wall s", "processors busy", "own MB", "machine's MB"]
    rows = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.root) as scratch:
        matrix = Path(scratch) / "matrix.yaml"
        cells = write_matrix(matrix, versions)
        for jobs in options.jobs.split(","):
            store = Path(scratch) / f"store-{jobs}"
            argv = [
                *(str(Path(sys.executable).parent / "local-imager"), "-q"),
                *("--config", str(config), "--store", str(store)),
                *("build", "--matrix", str(matrix), "--no-export"),
                *(("--jobs", jobs) if jobs else ()),
                *(("--memory", options.memory) if options.memory else ()),
            ]
            for state in ("cold", "cached"):
                machine, peak_mb = run(argv)
                say(f"{state}: {machine.wall_s:.1f} s")
                busy = f"{100 * machine.busy_share:.0f} %"
                memory = [f"{peak_mb:.0f}", f"{machine.memory_mb:.0f}"]
                rows.append([jobs or "default", state, f"{machine.wall_s:.1f}", busy, *memory])
    print(f"{os.cpu_count()} cores, load {load:.1f} before; {cells} cells, {', '.join(versions)}")
    show("A matrix of ISOs", head, rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
