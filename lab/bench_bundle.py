"""The part of `make bench` about bundles: how fast they are made, verified and imported.

What they are held against is measured in the same turn over the same bytes: SHA-256 on one core,
which nothing that checks every byte can beat, and a plain copy that ends on the disk. The images
are noise, which can neither be compressed nor found twice; since their signatures would cost next
to nothing beside their bytes, they have none. How little a second version can be is measured with
them and with the lab's own images, which are signed.
"""

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lab.bench_figures import program, show
from lab.console import LabError, say
from lab.oci import CONFIG, MANIFEST, Descriptor, Layout
from lab.place import NAME_PREFIX, Place, find_place

RUNS = 5
REGISTRY = "bench.local-imager.test"
IMAGES = 20
LAYERS = 10
LAYER_BYTES = 10 * 1024 * 1024
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
OLDER, NEWER = "v1.12.1", "v1.13.0"
WANTED_RATIO = 0.70
WANTED_MEMORY_MB = 200
WANTED_SHARE = 0.15
_CHUNK_BYTES = 1024 * 1024
_HASH = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256')"


def noise(seed: str, size_bytes: int) -> Iterator[bytes]:
    """Yield bytes that follow from the seed and that no program can make smaller."""
    key = hashlib.sha256(seed.encode()).digest()
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(_CHUNK_BYTES)
    for start in range(0, size_bytes, _CHUNK_BYTES):
        yield cipher.update(zeros[: min(_CHUNK_BYTES, size_bytes - start)])


def put_layer(layout: Layout, seed: str) -> Descriptor:
    """Put an uncompressed layer with one file of noise into the layout; return its descriptor."""
    info = tarfile.TarInfo(f"noise/{seed}")
    info.size = LAYER_BYTES
    padding = bytes(-info.size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
    content = b"".join((info.tobuf(tarfile.USTAR_FORMAT), *noise(seed, info.size), padding))
    return layout.put(LAYER_TAR, content)


def put_images(layout: Layout, tag: str, changed: str) -> list[str]:
    """Put images of noise under a tag; the last layer of each follows from `changed`."""
    names = []
    for number in range(IMAGES):
        seeds = [f"{number}-{layer}" for layer in range(LAYERS - 1)] + [f"{number}-{changed}"]
        layers = [put_layer(layout, seed) for seed in seeds]
        rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.put_json(CONFIG, config),
            "layers": layers,
        }
        names.append(f"{REGISTRY}/site/noise-{number}:{tag}")
        layout.name(layout.put_json(MANIFEST, document), names[-1])
    return names


@dataclass(frozen=True, slots=True)
class Run:
    """One process: wall seconds, and its largest resident size in MB.

    The kernel counts from the fork on, so the size is never below that of this program.
    """

    seconds: float
    memory_mb: float


def run(argv: list[str]) -> Run:
    """Run a process to its end, with all that was written before it on the disk."""
    os.sync()
    with tempfile.TemporaryFile() as said:
        began_s = time.monotonic()
        process = subprocess.Popen(argv, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        took_s = time.monotonic() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            tail = said.read()[-800:].decode(errors="replace")
            raise LabError(f"{' '.join(argv)[:200]} ended with {process.returncode}: {tail}")
    return Run(took_s, usage.ru_maxrss * 1024 / 1e6)


@dataclass
class Bench:
    """A near side with images in its store and an empty far side, in a folder."""

    folder: Path
    config: Path
    runs: dict[str, list[Run]] = field(default_factory=dict)

    @property
    def near(self) -> Path:
        return self.folder / "near"

    @property
    def far(self) -> Path:
        return self.folder / "far"

    @property
    def bundle(self) -> Path:
        return self.folder / "site.tar"

    def program(self, store: Path, *arguments: str) -> list[str]:
        return program(self.config, store, *arguments)

    def create(self, output: Path, *what: str) -> list[str]:
        return self.program(self.near, "bundle", "create", *what, "-o", str(output))

    def take_in(self, bundle: Path) -> list[str]:
        reports = str(self.folder / "reports")
        return self.program(self.far, "bundle", "import", str(bundle), "--report", reports)

    def turn(self, what: list[str]) -> None:
        """Measure each thing once, over the same bytes."""
        copy = self.folder / "copy.tar"
        done = {
            "create": run(self.create(self.bundle, *what)),
            "verify": run(self.program(self.far, "bundle", "verify", str(self.bundle))),
            "import": run(self.take_in(self.bundle)),
            "sha256": run([sys.executable, "-c", _HASH, str(self.bundle)]),
            "copy": run(["sh", "-c", f"cp {self.bundle} {copy} && sync {copy}"]),
        }
        copy.unlink()
        for name, measured in done.items():
            self.runs.setdefault(name, []).append(measured)

    def rows(self, size_bytes: int) -> list[list[str]]:
        """Return the table: rates, and their share of the slower limit of the same turn."""
        rates = {n: [size_bytes / 1e6 / r.seconds for r in runs] for n, runs in self.runs.items()}
        limits = [min(pair) for pair in zip(rates["sha256"], rates["copy"], strict=True)]
        table = []
        for name, found in rates.items():
            shares = [rate / limit for rate, limit in zip(found, limits, strict=True)]
            memory = max(one.memory_mb for one in self.runs[name])
            measured = name in ("create", "verify", "import")
            table.append(
                [
                    name if measured else f"({name})",
                    f"{statistics.median(found):.0f} ({min(found):.0f}–{max(found):.0f})",
                    f"{statistics.median(shares):.2f}" if measured else "",
                    f"{WANTED_RATIO:.2f}" if measured else "",
                    f"{memory:.0f}" if measured else "",
                ]
            )
        return table


def speeds(place: Place, folder: Path) -> list[str]:
    """Print the table of rates; return the row of the second version of the same images."""
    layout = Layout.create(folder / "upstream")
    first, second = put_images(layout, "v1", "old"), put_images(layout, "v2", "new")
    layout.save()
    config = folder / "settings.toml"
    config.write_text(
        f'[upstream]\nregistry = "{REGISTRY}"\nsource = "upstream"\n\n'
        f'[[trust]]\npattern = "{REGISTRY}/**"\naccept_unverified = true\n'
    )
    bench = Bench(folder, config)
    run(bench.create(bench.bundle, *images(first)))  # fetches them
    size_bytes = bench.bundle.stat().st_size
    say(f"bundle of {size_bytes / 1e6:.0f} MB made")
    for number in range(RUNS):
        bench.bundle.unlink()
        shutil.rmtree(bench.far, ignore_errors=True)
        bench.turn([*images(first), "--offline"])
        say(f"turn {number + 1} of {RUNS} measured")
    head = ["what", "MB/s", "of the slower limit", "at least", f"MB, at most {WANTED_MEMORY_MB}"]
    show(f"Bundle of {size_bytes / 1e6:.0f} MB", head, bench.rows(size_bytes))
    run(bench.create(folder / "second.tar", *images(second)))
    return share(bench, f"{IMAGES} images of noise, one layer of {LAYERS} new", images(second))


def images(names: list[str]) -> list[str]:
    """Return the options that name images."""
    return [word for name in names for word in ("--image", name)]


def share(bench: Bench, name: str, what: list[str]) -> list[str]:
    """Make a second version whole and as a delta against the far store; return the table row."""
    inventory, delta = bench.folder / "far.json", bench.folder / "delta.tar"
    whole = bench.folder / "whole.tar"
    run(bench.program(bench.far, "store", "inventory", "--force", "-o", str(inventory)))
    run(bench.create(whole, *what))
    made = run(bench.create(delta, *what, "--since", str(inventory)))
    taken = run(bench.take_in(delta))
    sizes = [path.stat().st_size for path in (whole, delta)]
    for path in (whole, delta):
        path.unlink()
    return [
        name,
        *(f"{size / 1e6:.1f}" for size in sizes),
        f"{sizes[1] / sizes[0]:.1%}",
        f"{WANTED_SHARE:.0%}",
        f"{made.seconds:.1f}, {made.memory_mb:.0f} MB",
        f"{taken.seconds:.1f}, {taken.memory_mb:.0f} MB",
    ]


def of_lab(place: Place, folder: Path) -> Iterator[list[str]]:
    """Yield the rows of the lab's own images: all that a build needs, and two images alone."""
    schematic = ["--schematic", "schematics/extensions.yaml", "--arch", "amd64"]
    pairs = {
        f"{OLDER} → {NEWER}, schematics/extensions.yaml": [
            ["--version", version, *schematic] for version in (OLDER, NEWER)
        ],
        f"{OLDER} → {NEWER}, imager and installer alone": [
            images(
                [f"{NAME_PREFIX}/siderolabs/{n}:{version}" for n in ("imager", "installer-base")]
            )
            for version in (OLDER, NEWER)
        ],
    }
    for number, (name, (older, newer)) in enumerate(pairs.items()):
        own = folder / str(number)
        own.mkdir()
        bench = Bench(own, place.root / "lab.toml")
        run(bench.create(bench.bundle, *older))
        run(bench.take_in(bench.bundle))
        yield share(bench, name, newer)


def main() -> int:
    """Measure and print; needs neither engine nor registry."""
    place = find_place()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.root) as scratch:
        folder = Path(scratch)
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f} before; medians of {RUNS} (min–max)")
        rows = [speeds(place, folder)]
        shutil.rmtree(folder / "near")
        rows += of_lab(place, folder)
        head = [
            "second version",
            "whole, MB",
            "delta, MB",
            "share",
            "at most",
            "made, s",
            "taken, s",
        ]
        show("What travels of a second version", head, rows)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(1)
