"""`make bench`: what the program costs, as ratios to other work done in the same session.

Every figure is the median of some whole processes, taken in turn with what it is compared to, so
that a machine whose speed drifts does not favour either.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from lab.bench_build import RAW_ZST, SCHEMATIC, VERSION, beside_by_hand, build_argv, cached, phases
from lab.bench_figures import Figures, peak_memory_mb, program, show, timed
from lab.console import LabError
from lab.place import find_place
from local_imager.store.store import Store

RUNS = 5
IMAGES = 100


def small() -> list[list[str]]:
    """Return the rows of the commands that should not be felt."""
    binary = str(Path(sys.executable).parent / "local-imager")
    rows = []
    for what, argv in (
        ("schematic id", [binary, "schematic", "id", SCHEMATIC]),
        ("--help", [binary, "--help"]),
        ("(python -c pass)", [sys.executable, "-c", "pass"]),
    ):
        rows.append([what, str(Figures(tuple(timed(argv) for _ in range(RUNS)))), "0.25 s"])
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


def main() -> int:
    """Measure and print; the lab's engine is expected to run."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.bench", description=__doc__)
    parser.add_argument("--realistic", action="store_true", help="images that weigh what real do")
    options = parser.parse_args()
    place = find_place()
    config = place.root / ("lab-realistic.toml" if options.realistic else "lab.toml")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.root) as scratch:
        folder = Path(scratch)
        store = folder / "store"
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f} before; medians (min–max), seconds")
        head = ["asset", "local-imager, cold", "imager by hand", "ours to by hand", "aim"]
        show("Builds beside the imager run by hand", head, beside_by_hand(config, store, folder))
        rows = cached(config, store, folder / "out") + small()
        show("Commands", ["command", "seconds", "at most"], rows)
        for title, table in phases(config, store):
            print(f"\n### {title}\n\n```\n{table.rstrip()}\n```")
        argv = build_argv(config, store, RAW_ZST, "--rebuild", "--no-export")
        rows = [["peak of a raw.zst build", f"{peak_memory_mb(argv):.0f}", "150"]]
        show("Memory", ["what", "MB", "at most"], rows)
        if not options.realistic:
            rows = verification(place.root / "lab-keyless.toml", folder)
            show("Verification of keyless images", ["what", "seconds", "at most"], rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
