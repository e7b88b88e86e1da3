"""The build part of `make bench`: our builds beside the imager run by hand, in one session.

By hand means as the imager's documentation shows it: `docker run … imager - < profile`, the same
profile, the container's own layer for temporary files, every step the imager's own. Ours are whole
processes, cold: planning, verification, engine, containers, hashing, store; the source images are
in the store and the builder is in the engine, as they are for the run by hand.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lab.bench_figures import Figures, program, timed
from lab.console import LabError, say
from local_imager.build.request import BegunRun, ImagerFailed, ImagerRequest
from local_imager.build.runner import DockerRunner
from local_imager.events import EventSink
from local_imager.pipeline import BuildOrder, Factory
from local_imager.schematic.parse import read_schematic
from local_imager.settings import Settings, load_settings

SCHEMATIC = "schematics/extensions.yaml"
VERSION = "v1.13.0"
UKI, ISO, RAW_ZST = "metal-amd64-uki.efi", "metal-amd64.iso", "metal-amd64.raw.zst"
TEN = (
    "kernel-amd64",
    "initramfs-amd64.xz",
    "cmdline-metal-amd64",
    UKI,
    ISO,
    RAW_ZST,
    "metal-amd64.raw.xz",
    "metal-amd64.qcow2",
    "metal-amd64.vhd",
    "installer-amd64.tar",
)
# asset, how often each side is run
COMPARED = ((UKI, 5), (ISO, 5), (RAW_ZST, 3))


class KeepingRunner(DockerRunner):
    """Runs as usual, and keeps each request with a copy of its inputs for the runs by hand."""

    def __init__(self, keep: Path) -> None:
        super().__init__()
        self._keep = keep
        self.requests: dict[str, ImagerRequest] = {}

    @contextlib.contextmanager
    def begin(
        self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
    ) -> Iterator[BegunRun]:
        """Keep the inputs, then begin."""
        if request.input_dir is not None and request.subject not in self.requests:
            inputs = self._keep / f"inputs-{len(self.requests)}"
            shutil.copytree(request.input_dir, inputs, copy_function=_hard_link)
            self.requests[request.subject] = replace(request, input_dir=inputs)
        with super().begin(request, sink, cancel) as begun:
            yield begun


def _hard_link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


class ByHand:
    """The runs by hand: inputs laid out once, then only the `docker run` is timed."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder
        self._runner = KeepingRunner(folder)
        self._factory = Factory(settings, runner=self._runner)

    def prepare(self, asset: str) -> None:
        """Lay out the inputs of an asset by building it once, every step the imager's own."""
        order = BuildOrder(read_schematic(SCHEMATIC), VERSION, (asset,), exact=True, rebuild=True)
        self._factory.build(order)

    def run(self, asset: str) -> float:
        """Return the seconds of one run; raises LabError when it fails."""
        request = self._runner.requests[asset]
        out = self._folder / "by-hand"
        out.mkdir()
        argv = ["docker", "run", "--rm", "-i", "--network", "none"]
        argv += ["-v", f"{request.input_dir}:/in:ro", "-v", f"{out}:/out"]
        argv += [request.image_id, "-", "--output", "/out"]
        began_s = time.monotonic()
        done = subprocess.run(argv, input=request.stdin, capture_output=True, check=False)
        taken = time.monotonic() - began_s
        shutil.rmtree(out)
        if done.returncode:
            raise LabError(f"by hand, {asset}: {done.stderr.decode(errors='replace')[-600:]}")
        return taken

    def close(self) -> None:
        """Close the engine's connection."""
        self._runner.close()


def in_place_of(hand: ByHand, asset: str) -> float:
    """Return the seconds of one run by hand.

    The lab's qemu-img refuses the empty option list that the imager gives it for a qcow2 or vhd
    without options: then it is the raw disk that these are made from, which takes less.
    """
    try:
        hand.prepare(asset)
    except ImagerFailed:
        asset = "metal-amd64.raw"
        hand.prepare(asset)
    return hand.run(asset)


def build_argv(config: Path, store: Path, *words: str) -> list[str]:
    """Return the argv that builds assets (or takes further flags)."""
    return program(config, store, "build", SCHEMATIC, *words, "--version", VERSION)


def cold(config: Path, store: Path, *assets: str) -> float:
    """Return the seconds of a build from nothing but verified source images."""
    return timed(build_argv(config, store, *assets, "--rebuild", "--no-export"))


def beside_by_hand(config: Path, store: Path, folder: Path) -> list[list[str]]:
    """Return the rows: asset, ours, by hand, how they compare, the aim."""
    settings = load_settings(config=config, flags={"store": str(store)})
    hand = ByHand(settings, folder)
    aims = {UKI: "+0.5 s", ISO: "1.0 ×", RAW_ZST: "0.3 ×"}
    rows, whole = [], 0.0
    try:
        measured: dict[str, float] = {}
        for asset, runs in COMPARED:
            hand.prepare(asset)
            ours, theirs = [], []
            for _ in range(runs):
                ours.append(cold(config, store, asset))
                theirs.append(hand.run(asset))
            mine, other = Figures(tuple(ours)), Figures(tuple(theirs))
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            added = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
            rows.append(
                [asset, str(mine), str(other), f"{ratio:.2f} ×, {added:+.2f} s", aims[asset]]
            )
            measured[asset] = mine.median
            whole += other.median
            say(f"measured {asset}")
        for asset in TEN:
            if asset not in measured:
                whole += in_place_of(hand, asset)
        ten = Figures(tuple(cold(config, store, *TEN) for _ in range(3)))
        alone = ten.median / measured[RAW_ZST]
        rows.append(
            ["all ten together", str(ten), f"{whole:.2f} (sum of ten)",
             f"{ten.median / whole:.2f} ×; {alone:.2f} × our {RAW_ZST}", "0.2 ×; 1.5 ×"]
        )  # fmt: skip
        say("measured all ten")
    finally:
        hand.close()
    return rows


def cached(config: Path, store: Path, out: Path) -> list[list[str]]:
    """Return the rows of builds that find everything in the store, exported files included."""
    rows = []
    for what, assets, aim in (
        ("one asset, cached", (ISO,), "0.3 s"),
        ("ten, cached", TEN, "0.5 s"),
    ):
        argv = build_argv(config, store, *assets, "--out", str(out))
        timed(argv)
        rows.append([what, str(Figures(tuple(timed(argv) for _ in range(5)))), aim])
    return rows


def phases(config: Path, store: Path) -> list[tuple[str, str]]:
    """Return the phase tables of a cold raw.zst and of a cached build, as the program prints."""
    tables = []
    for title, words in (
        (f"Phases of a cold {RAW_ZST}", (RAW_ZST, "--rebuild")),
        (f"Phases of a cached {RAW_ZST}", (RAW_ZST,)),
    ):
        argv = build_argv(config, store, *words, "--no-export", "--timings")
        done = subprocess.run(argv, capture_output=True, check=True, text=True)
        tables.append((title, done.stdout))
    return tables
