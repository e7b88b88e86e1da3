"""The part of `make bench` about `inspect`: how long it takes and how much memory it needs.

The disks are those of the lab's images of realistic size: 4.4 GB, nearly all of it holes or zeros.
What a file's own bytes cost at least stands beside: unpacking it with zstd into nothing.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.bench_figures import Figures, peak_memory_mb, program, show, timed
from lab.console import LabError, run
from lab.debian import need_packages
from lab.place import find_place

RUNS = 5
VERSION = "v1.13.0"
SCHEMATIC = "schematics/vanilla.yaml"
ASSETS = ("metal-amd64.raw.zst", "metal-amd64.iso", "metal-amd64-uki.efi", "installer-amd64.tar")
WANTED_S = 3.0
WANTED_MB = 150


def build(config: Path, folder: Path) -> dict[str, Path]:
    """Build the files that are looked at, and unpack the disk into a sparse file."""
    out = folder / "out"
    argv = ["build", SCHEMATIC, *ASSETS, "--version", VERSION, "--out", str(out)]
    run(program(config, folder / "store", *argv))
    files = {path.name: path for path in out.rglob("*") if path.name in ASSETS}
    packed, raw = files["metal-amd64.raw.zst"], folder / "metal-amd64.raw"
    run(["zstd", "--decompress", "--sparse", "--quiet", "-o", str(raw), str(packed)])
    return {"metal-amd64.raw": raw, **files}


def measure(config: Path, folder: Path, files: dict[str, Path]) -> list[list[str]]:
    """Return a row for each file and way to ask; nothing of it is in the store that is asked."""
    rows = []
    for name in ("metal-amd64.raw", *ASSETS):
        for options in ((), ("--json",), ("--json", "--full")):
            argv = program(config, folder / "none", "inspect", str(files[name]), *options)
            figures = Figures(tuple(timed(argv) for _ in range(RUNS)))
            memory_mb = peak_memory_mb(argv)
            bound = "" if "--full" in options else f"{WANTED_S:.0f} s, {WANTED_MB} MB"
            what = " ".join(("inspect", name, *options))
            rows.append([what, str(figures), f"{memory_mb:.0f} MB", bound])
    unpack = ["zstd", "--decompress", "--quiet", "--stdout", str(files["metal-amd64.raw.zst"])]
    quiet = ["sh", "-c", f"{' '.join(unpack)} > /dev/null"]
    alone = Figures(tuple(timed(quiet) for _ in range(RUNS)))
    rows.append(["(zstd -d metal-amd64.raw.zst > /dev/null)", str(alone), "", ""])
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="settings; those of the realistic lab else")
    options = parser.parse_args()
    need_packages(["inspect"])
    place = find_place()
    config = options.config or place.root / "lab-realistic.toml"
    with tempfile.TemporaryDirectory(prefix="bench-inspect-", dir=place.root) as folder:
        files = build(config, Path(folder))
        head = ["command", "seconds: median (least–most)", "memory", "wanted"]
        show("inspect, images of realistic size", head, measure(config, Path(folder), files))


if __name__ == "__main__":
    try:
        main()
    except (LabError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
