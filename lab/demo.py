"""What `make demo` shows: the main job, for real, and in plain words what was done.

Runs inside `lab run --engine` with the project's own interpreter; talks to the program through
its command line, as a user does.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.console import LabError
from lab.debian import need_packages
from lab.place import find_place

SCHEMATIC = Path("schematics/demo.yaml")
PROOF = ("local-imager.demo=works", "hello-world-service says")
"""A kernel argument and an extension of the demo schematic, as the console must show them."""


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


def main() -> int:
    """Build and boot both rounds; return 0 when everything was seen."""
    began_s = time.monotonic()
    need_packages(["boot"])
    place = find_place()
    program = Program(place.root / "lab.toml", place.root / "demo-store")
    schematic_id = program.text("schematic", "id", str(SCHEMATIC)).strip()
    title("The schematic")
    print(f"{SCHEMATIC} asks for kernel arguments, a META value, two extensions and an overlay.")
    print(f"Its ID, the same that the official factory would give: {schematic_id}")
    for number, asked in enumerate(ROUNDS, 1):
        title(f"{number}. Images of Talos {asked.version}")
        program.show("build", str(SCHEMATIC), *asked.assets, "--version", asked.version)
    for asked in ROUNDS:
        built = Path("out") / schematic_id[:12] / asked.version / asked.boots
        title(f"Booting {asked.boots} of {asked.version} in QEMU, without network")
        boot(program, built, place.root / "demo-boots")
    title("What was done")
    print(
        "The source images were read from the lab's layout; the signature of each was checked\n"
        "with the lab's public key before anything of it was unpacked or run. The v1.13.0 imager\n"
        "built all files in a container without network, without capabilities and without root,\n"
        "those of v1.9.0 too. The files are in out/, their checksums beside them; the store keeps\n"
        "them by content with a build record each, so that building again takes no time. Two of\n"
        "them were booted, and the console showed the schematic's kernel argument and extension."
    )
    print(f"All of it took {time.monotonic() - began_s:.0f} s.")
    return 0


def title(text: str) -> None:
    """Print a heading, before whatever the program itself says."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def boot(program: "Program", built: Path, proofs: Path) -> None:
    """Boot a file and print the lines of its console that prove the schematic.

    The console of a boot is kept by the file's digest: the same bytes are not booted again.
    """
    digest = built.with_name(built.name + ".sha256").read_text().split()[0]
    proof = proofs / f"{digest}.json"
    if proof.is_file():
        print("  these very bytes were booted before; the console then:")
    else:
        expect = [word for text in PROOF for word in ("--expect", text)]
        report = program.text("-q", "boot-test", str(built), *expect, "--json")
        proofs.mkdir(exist_ok=True)
        proof.write_text(report)
    report_read = json.loads(proof.read_text())
    console: list[str] = report_read["console"]
    for text in PROOF:
        line = next((line for line in console if text in line), "")
        at = max(0, line.find(text) - 50)
        print(f"  console: …{line[at : at + 110].strip()}")
    print(f"  {report_read['ended']} after {report_read['duration_s']:.0f} s")


class Program:
    """The `local-imager` command with the lab's settings and a store of the demo's own."""

    def __init__(self, config: Path, store: Path) -> None:
        self._argv = [sys.executable, "-m", "local_imager"]
        self._options = ["--config", str(config), "--store", str(store)]

    def show(self, *arguments: str) -> None:
        """Run a command for the reader to see; raises LabError when it fails."""
        print("$ local-imager " + " ".join(arguments), flush=True)
        self._run(arguments, None)

    def text(self, *arguments: str) -> str:
        """Run a command and return its standard output; raises LabError when it fails."""
        return str(self._run(arguments, subprocess.PIPE).stdout)

    def _run(self, arguments: tuple[str, ...], stdout: int | None) -> Any:
        options = self._options if arguments[0] != "schematic" else []
        done = subprocess.run(
            [*self._argv, *options, *arguments], stdout=stdout, text=True, check=False
        )
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
