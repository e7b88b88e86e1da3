"""What `make proof` shows: the same bytes twice, and a comparison that names what was altered.

Runs with the project's own interpreter inside `lab run --engine`, and talks to the program through
its command line, as a user does.
"""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.console import LabError
from lab.demo import Program, title
from lab.place import find_place

SCHEMATIC = Path("schematics/demo.yaml")
OUT = Path("out/proof")
ALTERED_VERSION, ALTERED_ASSET = "v1.13.0", "metal-amd64.raw.zst"


@dataclass(frozen=True, slots=True)
class Round:
    """One Talos version of the proof and the assets that are built twice.

    ``noise`` names, for an asset that cannot repeat, the noise that may differ and nothing else
    (codes of docs/compare.md); all others have to have the same bytes.
    """

    version: str
    assets: tuple[str, ...]
    noise: Mapping[str, frozenset[str]] = field(default_factory=dict)


# grub-mkrescue writes the time of its run into its marker, what searches for it, and a serial.
GRUB_RESCUE = frozenset({"grub-marker", "fat-serial", "follows-noise"})


ROUNDS = (
    Round(
        "v1.13.0",
        (
            "initramfs-amd64.xz",
            "metal-amd64-uki.efi",
            "metal-amd64.iso",
            "metal-amd64.raw.zst",
            "installer-amd64.tar",
        ),
    ),
    Round(
        "v1.9.0",
        ("metal-amd64.iso", "nocloud-amd64.raw.xz", "installer-amd64.tar"),
        {"metal-amd64.iso": GRUB_RESCUE},
    ),
)


def main() -> int:
    """Show all of it; return 0 when everything was as it has to be."""
    place = find_place()
    began_s = time.monotonic()
    program = Program(place.root / "lab.toml", place.root / "demo-store")
    OUT.mkdir(parents=True, exist_ok=True)
    for number, asked in enumerate(ROUNDS, 1):
        title(f"{number}. Talos {asked.version}, built twice in differing surroundings")
        twice(program, asked)
    title("3. One kernel argument, one extension and one META value altered")
    plain, altered = write_altered(OUT)
    left = build(program, plain)
    right = build(program, altered)
    report = OUT / "report.html"
    words = ("compare", str(left), str(right), "--html", str(report), "--force")
    show(program, words, expected_status=4)
    require_just(altered_words(program, words[:3]))
    title("What was shown")
    print(
        "Each file was built twice, in surroundings that differ as each round says. All have the\n"
        "same bytes, but for the v1.9.0 ISO where its GRUB writes the time of the run. Of the two\n"
        f"disks the comparison names just what was altered. As a page: {report}\n"
        f"All of it took {time.monotonic() - began_s:.0f} s."
    )
    return 0


def twice(program: Program, asked: Round) -> None:
    """Build a round twice and say what came of each asset.

    Raises LabError when one differs in anything that the round does not name.
    """
    words = ("build", str(SCHEMATIC), *asked.assets, "--version", asked.version)
    words += ("--no-export", "--rebuild", "--verify-reproducible", "--json")
    status, text = run(program, words)
    if status not in (0, 4):
        raise LabError(f"local-imager build ended with status {status}")
    answers = {one["asset"]: one["reproducible"] for one in json.loads(text)}
    if tuple(answers) != asked.assets:
        raise LabError(f"{', '.join(asked.assets)} were asked for, and {list(answers)} came")
    for name, value in answers[asked.assets[0]]["varied"].items():
        print(f"  {name:<10}  {value}")
    for asset, answer in answers.items():
        for kept in answer["kept"]:
            print(f"  {asset}: not varied: {kept}")
        print(f"  {asset:<22}  {outcome(asset, answer, asked.noise.get(asset, frozenset()))}")


def outcome(asset: str, answer: Mapping[str, Any], noise: frozenset[str]) -> str:
    """Say what a second build gave; raises LabError unless all that differs is in ``noise``."""
    if answer["equal"] is True:
        return f"the same bytes: {answer['digest'][:23]}…"
    found = answer["differences"]
    others = [one["what"] for one in found if one.get("noise") not in noise]
    if others or not found:
        what = "; ".join(others) or "nothing says in what"
        raise LabError(f"{asset} does not repeat ({answer['verdict']}): {what}")
    return f"differs, only in what was named: {', '.join(sorted({one['noise'] for one in found}))}"


def run(program: Program, words: Sequence[str]) -> tuple[int, str]:
    """Run a command whose JSON is read here; returns its status and standard output."""
    print("$ local-imager " + " ".join(words), flush=True)
    done = subprocess.run(program.argv(*words), stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def show(program: Program, words: Sequence[str], *, expected_status: int) -> None:
    """Run a command for the reader to see; raises LabError when it ends otherwise."""
    print("$ local-imager " + " ".join(words), flush=True)
    status = subprocess.run(program.argv(*words), check=False).returncode
    if status != expected_status:
        raise LabError(f"local-imager {words[0]} ended with status {status}")


def write_altered(folder: Path) -> tuple[Path, Path]:
    """Write the schematic as it is and with three things altered; returns both files."""
    document = yaml.safe_load(SCHEMATIC.read_text())
    altered = copy.deepcopy(document)
    customization: dict[str, Any] = altered["customization"]
    customization["extraKernelArgs"][-1] = "local-imager.demo=altered"
    customization["meta"][0]["value"] = "another-rack"
    customization["systemExtensions"]["officialExtensions"].pop()
    files = (folder / "schematic.yaml", folder / "schematic-altered.yaml")
    for path, content in zip(files, (document, altered), strict=True):
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return files


def build(program: Program, schematic: Path) -> Path:
    """Build the disk of a schematic and return the exported file."""
    words = ("build", str(schematic), ALTERED_ASSET, "--version", ALTERED_VERSION)
    result = json.loads(program.text(*words, "--out", str(OUT), "--json"))
    (built,) = result
    return Path(built["path"])


def altered_words(program: Program, words: Sequence[str]) -> list[str]:
    """Return what the comparison calls the real differences."""
    done = subprocess.run(
        program.argv(*words, "--json"),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    document = json.loads(done.stdout)
    real = ("altered", "only-left", "only-right")
    return [entry["what"] for entry in document["differences"] if entry["change"] in real]


def require_just(found: list[str]) -> None:
    """Raise LabError unless a kernel argument, a META key and an extension were named, no more."""
    wanted = ("kernel argument", "META", "extension")
    missing = [word for word in wanted if not any(word in what for what in found)]
    if missing or len(found) != len(wanted):
        raise LabError(f"the comparison names {found}, and not just {', '.join(wanted)}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"proof: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
