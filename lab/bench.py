"""`make bench`: what the program costs beside the bare imager, as ratios in one session.

Every figure is the median of five, of whole processes, taken in turn with what it is compared to,
so that a machine whose speed drifts does not favour either. The bare run is the very container
that the program starts, run by hand with the same flags over the same inputs.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lab.console import LabError, say
from lab.place import find_place
from local_imager.build.command import equivalent_command
from local_imager.build.request import ImagerRequest, RunResult
from local_imager.build.runner import DockerRunner
from local_imager.events import EventSink
from local_imager.pipeline import BuildOrder, Factory
from local_imager.schematic.parse import read_schematic
from local_imager.settings import Settings, load_settings
from local_imager.store.store import Store

SCHEMATIC = "schematics/extensions.yaml"
VERSION = "v1.13.0"
RUNS = 5
IMAGES = 100
# asset, and the asset whose bare imager run it is compared with
KINDS = (
    ("metal-amd64-uki.efi", "metal-amd64-uki.efi"),
    ("metal-amd64.iso", "metal-amd64.iso"),
    ("metal-amd64.raw", "metal-amd64.raw"),
    ("metal-amd64.raw.zst", "metal-amd64.raw"),
)


class KeepingRunner(DockerRunner):
    """Runs as usual, and keeps each request with a copy of its inputs for the bare runs."""

    def __init__(self, keep: Path) -> None:
        super().__init__()
        self._keep = keep
        self.requests: dict[str, ImagerRequest] = {}

    def run(self, request: ImagerRequest, sink: EventSink, cancel: threading.Event) -> RunResult:
        """Keep the inputs, then run."""
        name = next(iter(sorted(request.outputs)))
        if request.input_dir is not None and name not in self.requests:
            inputs = self._keep / name / "in"
            shutil.copytree(request.input_dir, inputs, copy_function=_hard_link)
            self.requests[name] = replace(request, input_dir=inputs)
        return super().run(request, sink, cancel)


def _hard_link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


@dataclass(frozen=True, slots=True)
class Figures:
    """Wall seconds of each run."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.seconds):.2f}–{max(self.seconds):.2f})"


def timed(argv: list[str]) -> float:
    """Run a process to its end and return its wall seconds; raises LabError when it fails."""
    began_s = time.monotonic()
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-800:]
        raise LabError(f"{' '.join(argv)[:200]} ended with {done.returncode}: {said}")
    return time.monotonic() - began_s


def program(config: Path, store: Path, *arguments: str) -> list[str]:
    """Return the argv of the program with the lab's settings."""
    binary = str(Path(sys.executable).parent / "local-imager")
    return [binary, "-q", "--config", str(config), "--store", str(store), *arguments]


def build_argv(config: Path, store: Path, asset: str, *more: str) -> list[str]:
    """Return the argv that builds one asset."""
    return program(config, store, "build", SCHEMATIC, asset, "--version", VERSION, *more)


def bare_requests(settings: Settings, keep: Path) -> dict[str, tuple[ImagerRequest, str]]:
    """Build each compared asset once and return its imager run as a shell line."""
    runner = KeepingRunner(keep)
    assets = tuple(dict.fromkeys(bare for _, bare in KINDS))
    order = BuildOrder(read_schematic(SCHEMATIC), VERSION, assets, exact=True, rebuild=True)
    Factory(settings, runner=runner).build(order)
    engine = runner.info()
    lines = {}
    for name, request in runner.requests.items():
        out = keep / name / "out"
        out.mkdir()
        out.chmod(0o777)
        bare = replace(request, output_dir=out)
        lines[name] = (bare, equivalent_command(bare, engine))
    runner.close()
    return lines


def compare(config: Path, store: Path, keep: Path) -> list[list[str]]:
    """Return the table rows of builds beside bare runs."""
    settings = load_settings(config=config, flags={"store": str(store)})
    bare_lines = bare_requests(settings, keep)
    rows = []
    for asset, bare_name in KINDS:
        request, line = bare_lines[bare_name]
        ours, bare = [], []
        for _ in range(RUNS):
            ours.append(timed(build_argv(config, store, asset, "--rebuild", "--no-export")))
            bare.append(timed(["bash", "-c", line]))
            for file in request.output_dir.iterdir():
                file.unlink()
        mine, theirs = Figures(tuple(ours)), Figures(tuple(bare))
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        added = statistics.median(a - b for a, b in zip(ours, bare, strict=True))
        rows.append([asset, str(mine), str(theirs), f"{ratio:.2f}", f"{added:+.2f}"])
        say(f"measured {asset}")
    return rows


def small(config: Path, store: Path, out: Path) -> list[list[str]]:
    """Return the rows of the commands that should not be felt."""
    binary = str(Path(sys.executable).parent / "local-imager")
    cached = build_argv(config, store, "metal-amd64.iso", "--out", str(out))
    timed(cached)
    rows = []
    for what, argv in (
        ("cached build of an ISO", cached),
        ("schematic id", [binary, "schematic", "id", SCHEMATIC]),
        ("--help", [binary, "--help"]),
        ("(python -c pass)", [sys.executable, "-c", "pass"]),
    ):
        rows.append([what, str(Figures(tuple(timed(argv) for _ in range(RUNS))))])
    return rows


def verification(config: Path, folder: Path) -> list[list[str]]:
    """Return the rows of verifying one image and a hundred from the store, as whole processes.

    The hundred are the few images of one version under more names; each is verified from its
    signature up.
    """
    place = folder / "verified"
    timed(program(config, place, "sources", "fetch", "--version", VERSION))
    store = Store.open(place)
    held = store.images()
    for number in range(IMAGES - len(held)):
        entry = held[number % len(held)]
        name = entry.ref_name.partition("@")[0].rpartition(":")[0]
        store.layout.set_ref(f"{name}:bench-{number}", entry)
    # A registry is never asked by these commands, so this leaves them nothing but the store.
    alone = ["env", "LOCAL_IMAGER_UPSTREAM_SOURCE=https://registry.invalid"]
    one = [*alone, *program(config, place, "verify", held[0].ref_name)]
    many = [*alone, *program(config, place, "sources", "verify")]
    timed(many)  # the first run writes the rollback memory
    single, hundred = (Figures(tuple(timed(argv) for _ in range(RUNS))) for argv in (one, many))
    ratio = hundred.median / single.median
    return [
        ["verify, one image of the store", str(single), "0.8 s"],
        [f"sources verify, {IMAGES} images", str(hundred), f"10 × one (is {ratio:.1f} ×)"],
    ]


def peak_memory_mb(argv: list[str]) -> float:
    """Run a process and return its own largest resident size in MB (not the engine's)."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LabError(f"the build for the memory figure ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e6


def show(title: str, head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> int:
    """Measure and print; the lab's engine is expected to run."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.bench", description=__doc__)
    parser.add_argument("--realistic", action="store_true", help="images that weigh what real do")
    options = parser.parse_args()
    place = find_place()
    config = place.root / ("lab-realistic.toml" if options.realistic else "lab.toml")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.root) as scratch:
        folder = Path(scratch)
        store, keep = folder / "store", folder / "keep"
        keep.mkdir()
        load = os.getloadavg()[0]
        print(
            f"{os.cpu_count()} cores, load {load:.1f} before; medians of {RUNS} (min–max), seconds"
        )
        rows = compare(config, store, keep)
        head = ["asset", "local-imager build", "bare imager", "ratio", "added"]
        show("Builds beside the bare imager run (raw.zst beside the bare raw run)", head, rows)
        show("Commands", ["command", "seconds"], small(config, store, folder / "out"))
        rows = verification(place.root / "lab-keyless.toml", folder)
        show("Verification of keyless images", ["what", "seconds", "at most"], rows)
        argv = build_argv(config, store, "metal-amd64.raw.zst", "--rebuild", "--no-export")
        show("Memory", ["what", "MB"], [["peak of a raw.zst build", f"{peak_memory_mb(argv):.0f}"]])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
