"""What `make demo` shows: the main job, for real, and in plain words what was done.

Runs with the project's own interpreter, and talks to the program through its command line, as a
user does: with the lab's settings inside `lab run --engine`, or (`--upstream official`) with the
settings that the user has, which read the official registry under its own policy.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.console import LabError
from lab.debian import need_packages
from lab.place import Place, find_place


@dataclass(frozen=True, slots=True)
class Round:
    """One Talos version of the demo: what is built of it, and which file is booted."""

    version: str
    assets: tuple[str, ...]
    boots: str


ROUNDS = (
    Round(
        "v1.13.0",
        (
            "metal-amd64.iso",
            "metal-amd64-uki.efi",
            "metal-amd64.raw.zst",
            "metal-amd64.qcow2",
            "installer-amd64.tar",
        ),
        boots="metal-amd64.iso",
    ),
    Round(
        "v1.9.0",
        ("metal-amd64.iso", "nocloud-amd64.raw.xz", "installer-amd64.tar"),
        boots="nocloud-amd64.raw.xz",
    ),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """An upstream and what is shown of it.

    ``proofs`` are texts that the console of a boot must show: ``{version}`` and ``{schematic_id}``
    are filled in. ``consoles`` is where those of earlier boots are kept, if they are.
    """

    program: "Program"
    schematic: Path
    asks_for: str
    proofs: tuple[str, ...]
    boot_flags: tuple[str, ...]
    consoles: Path | None
    source: str


def lab_scene(place: Place) -> Scene:
    """Return the demo over the lab, with its settings and a store of the demo's own."""
    return Scene(
        Program(place.root / "lab.toml", place.root / "demo-store"),
        Path("schematics/demo.yaml"),
        "kernel arguments, a META value, two extensions and an overlay",
        ("local-imager.demo=works", "hello-world-service says"),
        (),
        place.root / "demo-boots",
        "The source images were read from the lab's layout; the signature of each was checked\n"
        "with the lab's public key before anything of it was unpacked or run.",
    )


def official_scene() -> Scene:
    """Return the demo over the official registry: no settings but the user's own.

    The real system goes on running, so watching its boot ends when all was seen. What its init
    says: Talos ``internal/app/init/main.go``, v1.9 and v1.13.
    """
    return Scene(
        Program(None, None),
        Path("schematics/demo-official.yaml"),
        "kernel arguments, a META value and two extensions",
        (
            "local-imager.demo=works",
            "booting Talos {version}",
            "enabling system extension schematic {schematic_id}",
        ),
        ("--until-seen", "--memory", "2048"),
        None,
        "The source images were read from the official registry; the signature of each was\n"
        "checked by the official policy before anything of it was unpacked or run.",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and boot both rounds; return 0 when everything was seen."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo")
    parser.add_argument("--upstream", choices=["lab", "official"], default="lab")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args(arguments)
    official = options.upstream == "official"
    scene = official_scene() if official else lab_scene(find_place())
    if options.dry_run:
        print("\n".join(commands(scene)))
        return 0
    cannot_boot = boot_fault(required=not official)
    began_s = time.monotonic()
    schematic_id = scene.program.text("schematic", "id", str(scene.schematic)).strip()
    title("The schematic")
    print(f"{scene.schematic} asks for {scene.asks_for}.")
    print(f"Its ID, the same that the official factory would give: {schematic_id}")
    for number, asked in enumerate(ROUNDS, 1):
        title(f"{number}. Images of Talos {asked.version}")
        scene.program.show(*build_words(scene, asked))
    for asked in ROUNDS if not cannot_boot else ():
        built = Path("out") / schematic_id[:12] / asked.version / asked.boots
        title(f"Booting {asked.boots} of {asked.version} in QEMU, without network")
        boot(scene, built, proofs_of(scene, asked, schematic_id))
    title("What was done")
    print(f"{scene.source} {_DONE}\n{cannot_boot or _BOOTED}")
    print(f"All of it took {time.monotonic() - began_s:.0f} s.")
    return 0


_DONE = (
    "The v1.13.0 imager\n"
    "built all files in a container without network, without capabilities and without root,\n"
    "those of v1.9.0 too. The files are in out/, their checksums beside them; the store keeps\n"
    "them by content with a build record each, so that building again takes no time."
)
_BOOTED = "Two of them were booted, and the console showed what the schematic asks for."


def build_words(scene: Scene, asked: Round) -> tuple[str, ...]:
    """Return the words of the command that builds a round."""
    return (
        "build",
        str(scene.schematic),
        *asked.assets,
        "--version",
        asked.version,
        "--out",
        "out",
    )


def boot_words(scene: Scene, built: Path, proofs: Sequence[str]) -> tuple[str, ...]:
    """Return the words of the command that boots a file and looks for the proofs."""
    expect = [word for text in proofs for word in ("--expect", text)]
    return ("-q", "boot-test", str(built), *scene.boot_flags, *expect, "--json")


def proofs_of(scene: Scene, asked: Round, schematic_id: str) -> list[str]:
    """Return what the console of a round's boot must show."""
    return [text.format(version=asked.version, schematic_id=schematic_id) for text in scene.proofs]


def commands(scene: Scene) -> list[str]:
    """Return every command of the demo, as it would be started."""
    program = scene.program
    lines = [program.argv("schematic", "id", str(scene.schematic))]
    lines += [program.argv(*build_words(scene, asked)) for asked in ROUNDS]
    for asked in ROUNDS:
        built = Path("out") / "ID" / asked.version / asked.boots
        lines.append(program.argv(*boot_words(scene, built, proofs_of(scene, asked, "ID"))))
    return [shlex.join(line) for line in lines]


def boot_fault(*, required: bool) -> str:
    """Return why nothing can be booted on this machine, an empty text when it can be.

    Raises LabError in place of that when booting is required. As root, what is missing of Debian
    is installed.
    """
    try:
        need_packages(["boot"])
    except LabError as problem:
        if required:
            raise
        return f"None of them was booted: {problem}"
    return ""


def title(text: str) -> None:
    """Print a heading, before whatever the program itself says."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def boot(scene: Scene, built: Path, proofs: Sequence[str]) -> None:
    """Boot a file and print the lines of its console that prove the schematic.

    The lab's boots are kept by the file's digest: the same bytes are not booted again.
    """
    kept: Path | None = None
    if scene.consoles is not None:
        scene.consoles.mkdir(exist_ok=True)
        digest = built.with_name(built.name + ".sha256").read_text().split()[0]
        kept = scene.consoles / f"{digest}.json"
    if kept is not None and kept.is_file():
        print("  these very bytes were booted before; the console then:")
        report = kept.read_text()
    else:
        report = scene.program.text(*boot_words(scene, built, proofs))
        if kept is not None:
            kept.write_text(report)
    report_read = json.loads(report)
    console: list[str] = report_read["console"]
    for text in proofs:
        line = next((line for line in console if text in line), "")
        at = max(0, line.find(text) - 50)
        print(f"  console: …{line[at : at + 110].strip()}")
    print(f"  {report_read['ended']} after {report_read['duration_s']:.0f} s")


class Program:
    """The `local-imager` command with settings and a store, or with those that the user has."""

    def __init__(self, config: Path | None, store: Path | None) -> None:
        self._argv = [sys.executable, "-m", "local_imager"]
        given = (("--config", config), ("--store", store))
        self._options = [str(word) for pair in given if pair[1] is not None for word in pair]

    def argv(self, *arguments: str) -> list[str]:
        """Return the whole command line of a command."""
        options = self._options if arguments[0] != "schematic" else []
        return [*self._argv, *options, *arguments]

    def show(self, *arguments: str) -> None:
        """Run a command for the reader to see; raises LabError when it fails."""
        print("$ local-imager " + " ".join(arguments), flush=True)
        self._run(arguments, None)

    def text(self, *arguments: str) -> str:
        """Run a command and return its standard output; raises LabError when it fails."""
        return str(self._run(arguments, subprocess.PIPE).stdout)

    def _run(self, arguments: tuple[str, ...], stdout: int | None) -> Any:
        done = subprocess.run(self.argv(*arguments), stdout=stdout, text=True, check=False)
        if done.returncode:
            raise LabError(f"local-imager {arguments[0]} ended with status {done.returncode}")
        return done


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
