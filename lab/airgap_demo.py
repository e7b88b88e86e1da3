"""What `make airgap-demo` shows: a bundle made near, carried, taken in far, and built from there.

Runs inside `lab run --engine --registry` with the project's own interpreter. The near side reads
the lab's images from a real registry. The far side has an empty store, and each of its commands
runs in a network namespace without interfaces; the engine is reached over its Unix socket, which
is a file. Between them nothing goes but files that are copied from one folder to another.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.airgap_sides import (
    Side,
    containers_started,
    far_side,
    interfaces,
    near_side,
    stop_as_ctrl_c,
)
from lab.console import LabError
from lab.demo import title
from lab.place import Place, find_place
from lab.steps import remove_tree

SCHEMATIC = "demo.yaml"
FIRST, SECOND = "v1.9.0", "v1.13.0"
ASSETS = ("metal-amd64.iso", "metal-amd64.raw.zst", "installer-amd64.tar")
PART = "96MiB"
ORDER = (3, 1, 2)
"""In which order the parts arrive on the far side."""

FOLDER = "airgap-demo"
Assets = Sequence[str]
KEPT = Path("out/airgap-demo")
"""Where the import reports stay, unless it is said otherwise."""


@dataclass
class Evidence:
    """What is printed at the end: sizes in bytes, and per version what somebody can check."""

    sizes: list[tuple[str, int]] = field(default_factory=list)
    lines: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, version: str, *rows: tuple[str, str]) -> None:
        """Take rows about a version."""
        self.lines.setdefault(version, []).extend(rows)


@contextmanager
def scratch(place: Place) -> Iterator[Path]:
    """Yield a folder in the lab's file system; it goes, and what killed runs left goes too."""
    parent = place.root / FOLDER
    parent.mkdir(exist_ok=True)
    for old in parent.iterdir():
        if not Path("/proc", old.name.partition("-")[0]).exists():
            remove_tree(old)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        remove_tree(folder)


def main() -> int:
    """Show all of it; return 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.airgap_demo", description=__doc__)
    parser.add_argument("--asset", action="append", help="build these assets (default: three)")
    parser.add_argument("--reports", type=Path, default=KEPT, help="where the reports stay")
    options = parser.parse_args()
    assets = tuple(options.asset or ASSETS)
    began_s = time.monotonic()
    stop_as_ctrl_c()
    place = find_place()
    registry = os.environ.get("LAB_REGISTRY", "")
    if not registry:
        raise LabError("no registry of the lab is running: start this with `make airgap-demo`")
    with scratch(place) as folder:
        near = near_side(place, folder / "near", registry)
        far = far_side(place, folder / "far", near)
        shutil.copyfile(Path("schematics") / SCHEMATIC, near.folder / SCHEMATIC)
        evidence = Evidence()
        isolated(far)
        deliver_first(near, far, assets, evidence)
        build(far, FIRST, assets, evidence)
        deliver_second(near, far, assets, evidence)
        build(far, SECOND, assets, evidence)
        remove_tree(options.reports)
        shutil.copytree(far.folder / "out" / "reports", options.reports)
    conclude(evidence, options.reports, time.monotonic() - began_s)
    return 0


def isolated(far: Side) -> None:
    """Say where the sides are; raises LabError when the far side has a network."""
    title("The two sides")
    print(
        "near  reads the lab's images from a registry that runs on this machine\n"
        "far   an empty store; every command runs in a network namespace of its own:"
    )
    found = interfaces(far)
    if found:
        raise LabError(f"the network namespace has interfaces: {', '.join(found)}")
    print("      no interface is in it (cat /proc/net/dev shows loopback, which is down)")


def deliver_first(near: Side, far: Side, assets: Assets, evidence: Evidence) -> None:
    """The first bundle travels in parts, which arrive one by one, one of them damaged."""
    what = ("--version", FIRST, "--schematic", SCHEMATIC, "--arch", "amd64", "-o", "site.tar")
    title(f"1. Near: all that is needed to build {SCHEMATIC} for {FIRST}")
    print("How large is it? The answer writes no file.")
    near.show("bundle", "create", *what, "--dry-run")
    print(f"\nIts media hold {PART}, so it is cut; the near side signs it with a throwaway key.")
    near.show("bundle", "create", *what, "--split", PART, "--sign-key", "courier.key")
    parts = sorted(path.name for path in near.folder.glob("site.part*.tar"))
    if len(parts) != len(ORDER):
        raise LabError(f"{len(ORDER)} parts were expected, there are {len(parts)}")
    whole = near.json("bundle", "create", *what, "--dry-run")["size_bytes"]
    evidence.sizes.append((f"{FIRST} in one file", whole))
    sizes = [(near.folder / name).stat().st_size for name in parts]
    evidence.sizes += [(f"{FIRST}, {name}", size) for name, size in zip(parts, sizes, strict=True)]
    print("\nDoes the far side lack anything for its builds, with this alone?")
    near.show("bundle", "check", *wanted(FIRST, assets), "--key", "courier.pub", *parts)

    title("2. The parts are carried over, and arrive in another order")
    carry(near, far, ["site.tar.sigstore.json"])
    for number in ORDER[:-1]:
        name = parts[number - 1]
        carry(near, far, [name])
        far.show("bundle", "import", name)
    damaged = parts[ORDER[-1] - 1]
    carry(near, far, [damaged])
    flip_a_bit(far.folder / damaged)
    print("On the way one bit of it was damaged:")
    far.show("bundle", "import", damaged, code=3)
    print("\nSo it is copied once more.")
    carry(near, far, [damaged])
    far.show("bundle", "import", damaged, "--documents", FIRST)
    keep_report(far, FIRST, near.json("bundle", "inspect", parts[0])["set"], evidence)


def deliver_second(near: Side, far: Side, assets: Assets, evidence: Evidence) -> None:
    """The next version travels as what the far side lacks of it."""
    title(f"4. The next version, {SECOND}, travels as a delta")
    print("The far side writes down which blobs it has; that file is carried to the near side.")
    far.show("store", "inventory", "-o", "far.json")
    carry(far, near, ["far.json"])
    what = ("--version", SECOND, "--schematic", SCHEMATIC, "--arch", "amd64", "-o", "next.tar")
    whole = near.json("bundle", "create", *what, "--dry-run")["size_bytes"]
    near.show("bundle", "create", *what, "--since", "far.json", "--sign-key", "courier.key")
    delta = (near.folder / "next.tar").stat().st_size
    evidence.sizes += [(f"{SECOND} in one file", whole), (f"{SECOND} as a delta, next.tar", delta)]
    if delta * 2 > whole:
        raise LabError(f"the delta has {delta} bytes of {whole}: it is none")
    have = ("--have", "far.json", "--key", "courier.pub")
    near.show("bundle", "check", *wanted(SECOND, assets), *have, "next.tar")
    carry(near, far, ["next.tar", "next.tar.sigstore.json"])
    far.show("bundle", "import", "next.tar", "--documents", SECOND)
    keep_report(far, SECOND, near.json("bundle", "inspect", "next.tar")["set"], evidence)


def wanted(version: str, assets: Assets) -> list[str]:
    """Return the options that name the builds of a version."""
    named = [word for asset in assets for word in ("--asset", asset)]
    return ["--schematic", SCHEMATIC, "--version", version, *named]


def carry(here: Side, there: Side, names: Sequence[str]) -> None:
    """Copy files to the other side, as somebody with a disk in their pocket does."""
    for name in names:
        size = shutil.copyfile(here.folder / name, there.folder / name).stat().st_size
        print(f"\ncarried from {here.name} to {there.name}: {name} ({in_words(size)})", flush=True)


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a file, where layers lie."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def keep_report(far: Side, version: str, identity: str, evidence: Evidence) -> None:
    """Take the newest import report into the evidence; raises LabError when it is not complete."""
    report = newest_report(far)
    document: dict[str, Any] = json.loads(report.read_bytes())
    if document["set"] != identity or not document["complete"] or document["signed_by"] is None:
        raise LabError(f"{report.name} does not say that the signed bundle is complete")
    signers = sorted({item["signer"] for item in document["items"] if item["kind"] == "image"})
    evidence.add(
        version,
        ("bundle", identity),
        ("  signed by", document["signed_by"]["signer"]),
        ("  images signed by", ", ".join(signers)),
        ("import report", f"sha256:{hashlib.sha256(report.read_bytes()).hexdigest()}"),
        ("", report.name),
    )


def newest_report(far: Side) -> Path:
    """Return the JSON report that was written last."""
    reports = (far.folder / "out" / "reports").glob("*.json")
    return max(reports, key=lambda path: path.stat().st_mtime_ns)


def build(far: Side, version: str, assets: Assets, evidence: Evidence) -> None:
    """Build on the far side from what was carried, held to the lock that travelled with it."""
    number = 3 if version == FIRST else 5
    title(f"{number}. Far: {version} is built from what is in the store, held to the carried lock")
    lock, schematic = f"--locked={version}/local-imager.lock", f"{version}/{SCHEMATIC}"
    began_s = time.time()
    far.show("build", lock, schematic, *assets, "--version", version, "--offline")
    started, networks = containers_started(began_s, time.time())
    if not started or set(networks) - {"none"}:
        raise LabError(f"{started} containers ran; they were in the networks {networks}")
    evidence.add(version, ("interfaces seen", "none"))
    evidence.add(version, ("container networks", f"none ({started} ran)"))
    stored = far.json("store", "ls")["assets"]
    for asset in assets:
        digest = next(x["digest"] for x in stored if (x["version"], x["asset"]) == (version, asset))
        shown = far.json("store", "show", digest.removeprefix("sha256:")[:12])
        record = next(one for one in shown["attached"] if "record" in one["type"])
        evidence.add(version, (asset, digest), ("  build record", record["digest"]))


def conclude(evidence: Evidence, reports: Path, took_s: float) -> None:
    """Print the sizes and the evidence."""
    title("Sizes")
    for what, size in evidence.sizes:
        print(f"  {in_words(size):>11}  {what}")
    title("Evidence")
    for version, rows in evidence.lines.items():
        print(version)
        for what, value in rows:
            print(f"  {what:<20} {value}")
    title("What was done")
    print(
        "A site without a network was given two versions of Talos on media. Each bundle was\n"
        "proved complete before it travelled; each image was accepted by the far side's own\n"
        "policy before it had a name there; a damaged part was noticed and named. All assets\n"
        "were then built there, from nothing but what was carried. The import reports, as JSON\n"
        f"and as pages to print, are in {reports}/; everything else was removed again."
    )
    print(f"All of it took {took_s:.0f} s.")


def in_words(size_bytes: int) -> str:
    """Return a size for people."""
    if size_bytes < 2**20:
        return f"{size_bytes / 2**10:.1f} KiB"
    return f"{size_bytes / 2**20:.1f} MiB"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as problem:
        print(f"airgap-demo: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("airgap-demo: interrupted; everything that it made is removed", file=sys.stderr)
        sys.exit(130)
