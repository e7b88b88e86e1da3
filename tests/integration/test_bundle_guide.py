"""Every command of docs/bundles.md, run in the order in which it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from lab.airgap_sides import NO_NETWORK
from tests.labfolder import PREFIX, Lab
from tests.program import ROOT, SCHEMATICS

pytestmark = [pytest.mark.lab, pytest.mark.engine]

GUIDE = (ROOT / "docs" / "bundles.md").read_text()
# What is another here than in the guide: the registry's name, and sizes that keep the test short.
WORDS = {"ghcr.io": PREFIX, "4GB": "96MiB", "metal-amd64.iso": "cmdline-metal-amd64"}


@dataclass(frozen=True)
class Line:
    """A command of the guide: on which side, and the exit status that the guide tells."""

    side: str
    command: str
    code: int


def in_words_of_the_lab(text: str) -> str:
    for word, ours in WORDS.items():
        text = text.replace(word, ours)
    return text


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def lines_of(text: str) -> list[Line]:
    found = []
    for row in "".join(blocks(text, "console")).splitlines():
        side, prompt, command = row.partition("$ ")
        assert prompt and side in ("near", "far"), row
        exits = re.search(r"# exit (\d+)", command)
        found.append(Line(side, in_words_of_the_lab(command), int(exits[1]) if exits else 0))
    return found


def settings(text: str, more: str) -> str:
    """Return the settings of the guide, for a store beside them."""
    (toml,) = blocks(text, "toml")
    return f'store = "store"\nout = "out"\n{in_words_of_the_lab(toml)}'.replace(
        "[upstream]\n", f"[upstream]\n{more}"
    )


def test_every_command_of_the_guide(
    lab: Lab, engine: docker.DockerClient, lab_registry: str, programs: None, folder: Path
) -> None:
    sources = {"near": f'source = "http://{lab_registry}"\n', "far": ""}
    for side, source in sources.items():
        (folder / side).mkdir()
        (folder / side / "settings.toml").write_text(settings(GUIDE, source))
        shutil.copyfile(lab.root / "lab.pub", folder / side / "images.pub")
    shutil.copyfile(SCHEMATICS / "demo.yaml", folder / "near" / "edge.yaml")
    (folder / "medium").mkdir()
    path = f"{Path(sys.executable).parent}:{lab.root / 'bin'}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCAL_IMAGER_")}
    lines = lines_of(GUIDE)
    assert len(lines) > 25
    for line in lines:
        here = folder / line.side
        done = subprocess.run(
            [*(NO_NETWORK if line.side == "far" else ()), "bash", "-ec", line.command],
            cwd=here,
            env={
                **kept,
                "PATH": path,
                "MEDIUM": str(folder / "medium"),
                "LOCAL_IMAGER_CONFIG": str(here / "settings.toml"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == line.code, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(list((folder / "far" / "out").glob("*/*/cmdline-metal-amd64"))) == 2


def test_the_readme_shows_commands_of_the_guide() -> None:
    guide = {line.command for line in lines_of(GUIDE)}
    shown = [
        in_words_of_the_lab(row.partition("$ ")[2])
        for row in "".join(blocks((ROOT / "README.md").read_text(), "console")).splitlines()
        if row.startswith(("near$ ", "far$ "))
    ]
    assert len(shown) >= 3 and set(shown) <= guide
