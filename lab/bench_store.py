"""`python3 -m lab.bench_store`: what ten thousand assets in the store cost, beside an empty one.

The store is generated (:mod:`lab.generated_store`), each asset with its three referrers. Look-ups
are measured in one process with the index read anew each time, as a process does that looks once;
commands are whole processes; an ingest is an asset with its documents, taken in turn for the empty
and the full store.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.bench_figures import show
from lab.console import LabError
from lab.generated_store import record_of
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.store.records import AssetRecord, AttachedDocument
from local_imager.store.store import Store

RUNS = 9


def milliseconds(work: Callable[[], object], runs: int = RUNS) -> str:
    """Return the median and the range of some runs."""
    taken = []
    for _ in range(runs):
        began_s = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began_s) * 1000)
    return f"{statistics.median(taken):.1f} ({min(taken):.1f}–{max(taken):.1f})"


def fresh(path: Path) -> Store:
    """Return the store with nothing of its index in memory."""
    return Store(Layout(path))


def look_ups(path: Path, count: int) -> list[list[str]]:
    """Return the rows of finding one asset."""
    number = count // 2
    key, digest = record_of(number).build_key, Digest.of(b"file %d" % number)
    name = record_of(number).name
    return [
        ["find_build by its key", milliseconds(lambda: fresh(path).find_build(key)), "10"],
        ["find_build, not there", milliseconds(lambda: fresh(path).find_build("0" * 64)), "10"],
        ["show by digest", milliseconds(lambda: fresh(path).show(digest.hex[:12])), "10"],
        ["show by name", milliseconds(lambda: fresh(path).show(name)), "10"],
        ["Store.open", milliseconds(lambda: Store.open(path)), ""],
    ]


def command(path: Path, *arguments: str) -> tuple[str, str]:
    """Run a command of the program as a whole process; return milliseconds and peak MB."""
    argv = [str(Path(sys.executable).parent / "local-imager"), "--store", str(path), *arguments]
    peak = 0

    def once() -> None:
        nonlocal peak
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise LabError(f"{' '.join(arguments)} ended with {process.returncode}")
        peak = max(peak, usage.ru_maxrss)

    return milliseconds(once, 5), f"{peak * 1024 / 1e6:.0f}"


def ingest(store: Store, number: int) -> None:
    """Store a small new asset with the documents of a build."""
    with store.workspace() as folder:
        path = folder / "file"
        path.write_bytes(b"new %d %d" % (number, time.time_ns()))
        key = Digest.of(path.read_bytes()).hex
        store.put_asset(
            AssetRecord("f" * 64, "v1.13.0", "metal-amd64.iso", key, path),
            documents=lambda digest: [
                AttachedDocument(f"application/x-{kind}", f"{digest} {kind}".encode(), "text/plain")
                for kind in ("schematic", "record", "log")
            ],
        )


def ingests(empty: Path, full: Path) -> list[list[str]]:
    """Return the rows of ingests, taken in turn."""
    stores = {"into an empty store": Store.open(empty), "into the full store": Store.open(full)}
    taken: dict[str, list[float]] = {what: [] for what in stores}
    for number in range(RUNS):
        for what, store in stores.items():
            began_s = time.perf_counter()
            ingest(store, number)
            taken[what].append((time.perf_counter() - began_s) * 1000)
    return [
        [what, f"{statistics.median(t):.0f} ({min(t):.0f}–{max(t):.0f})"]
        for what, t in taken.items()
    ]


def main() -> int:
    """Make the stores, measure, print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.bench_store", description=__doc__)
    parser.add_argument("--assets", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the stores are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=options.folder) as scratch:
        empty, full = Path(scratch) / "empty", Path(scratch) / "full"
        Store.open(empty)
        began_s = time.monotonic()
        # By another process: the peak memory of this one would pass for that of what it starts.
        maker = [sys.executable, "-m", "lab.generated_store", str(full), str(options.assets)]
        subprocess.run(maker, check=True)
        seconds = time.monotonic() - began_s
        size_mb = (full / "index.json").stat().st_size / 1e6
        print(
            f"{options.assets} assets made in {seconds:.0f} s, index.json {size_mb:.1f} MB, "
            f"load {os.getloadavg()[0]:.1f}; medians (min–max), milliseconds"
        )
        rows = []
        for arguments in (["store", "ls"], ["store", "ls", "--json"], ["--help"]):
            taken, peak = command(full, *arguments)
            rows.append([" ".join(arguments), taken, peak])
        show("Whole processes", ["command", "ms", "peak MB"], rows)
        rows = look_ups(full, options.assets)
        show("Looking up, index read anew", ["what", "ms", "at most"], rows)
        show("Ingesting an asset with three documents", ["what", "ms"], ingests(empty, full))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
