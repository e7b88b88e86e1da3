"""What `make demo` starts: the lab's settings for the lab, none but the user's for official."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import demo
from lab.console import LabError
from lab.place import Place
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic

ROOT = Path(__file__).parents[3]
SCHEMATIC_ID = "ab" * 32
# What the init of a real Talos says (internal/app/init/main.go), in a console as QEMU gives it.
CONSOLE = [
    "[    0.0] Command line: talos.platform=metal console=ttyS0 local-imager.demo=works",
    "[    2.1] [talos] [initramfs] booting Talos v1.13.0",
    "[    2.1] [talos] [initramfs] booting Talos v1.9.0",
    f"[    2.2] [talos] [initramfs] enabling system extension schematic {SCHEMATIC_ID}",
]


class Started:
    """In place of the program: takes every command and answers as it would."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, argv: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Note the command and answer it."""
        assert argv[:3] == [sys.executable, "-m", "local_imager"]
        self.commands.append(list(argv[3:]))
        report = {"console": CONSOLE, "ended": "seen", "duration_s": 9.0}
        answer = json.dumps(report) if "boot-test" in argv else f"{SCHEMATIC_ID}\n"
        return subprocess.CompletedProcess(list(argv), 0, answer)

    def named(self, command: str) -> list[list[str]]:
        """Return the calls of one command."""
        return [words for words in self.commands if command in words]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    monkeypatch.chdir(tmp_path)
    fake = Started()
    monkeypatch.setattr(subprocess, "run", fake)
    monkeypatch.setattr(demo, "need_packages", lambda _purposes: None)
    return fake


def test_the_official_demo_uses_the_settings_that_the_user_has(
    started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--upstream", "official"]) == 0
    assert [words[0] for words in started.commands] == ["schematic", "build", "build", "-q", "-q"]
    for words in started.commands:
        assert not {"--config", "--store", "--policy", "--from"} & set(words)
    builds = started.named("build")
    assert [words[words.index("--version") + 1] for words in builds] == ["v1.13.0", "v1.9.0"]
    said = capsys.readouterr().out
    assert "official policy" in said and "lab" not in said
    assert f"enabling system extension schematic {SCHEMATIC_ID[:20]}" in said


def test_the_official_demo_watches_for_what_a_real_talos_says(started: Started) -> None:
    demo.main(["--upstream", "official"])
    boots = started.named("boot-test")
    assert len(boots) == 2
    for words, version in zip(boots, ("v1.13.0", "v1.9.0"), strict=True):
        assert "--until-seen" in words
        wanted = [words[at + 1] for at, word in enumerate(words) if word == "--expect"]
        assert f"booting Talos {version}" in wanted
        assert all(any(text in line for line in CONSOLE) for text in wanted)


def test_without_qemu_the_official_demo_builds_and_says_that_nothing_was_booted(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_purposes: Sequence[str]) -> None:
        raise LabError("missing Debian packages: qemu-system-x86")

    monkeypatch.setattr(demo, "need_packages", missing)
    assert demo.main(["--upstream", "official"]) == 0
    assert len(started.named("build")) == 2 and not started.named("boot-test")
    assert "None of them was booted: missing Debian packages" in capsys.readouterr().out
    with pytest.raises(LabError, match="missing Debian packages"):
        demo.main(["--upstream", "lab"])


def test_the_lab_demo_names_the_labs_settings_and_a_store_of_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path / "lab")
    lines = demo.commands(demo.lab_scene(place))
    assert "schematics/demo.yaml" in lines[0]
    for line in lines[1:]:
        assert f"--config {place.root}/lab.toml --store {place.root}/demo-store" in line


def test_a_dry_run_of_the_official_demo_needs_neither_lab_nor_engine(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "lab.demo", "--upstream", "official", "--dry-run"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 5
    assert "schematics/demo-official.yaml metal-amd64.iso" in done.stdout
    assert not list(tmp_path.iterdir())


def test_both_schematics_differ_in_the_labs_overlay_alone() -> None:
    theirs, ours = (
        parse_schematic((ROOT / "schematics" / name).read_bytes())
        for name in ("demo-official.yaml", "demo.yaml")
    )
    assert schematic_id(theirs) != schematic_id(ours)
    assert theirs.customization == ours.customization
    assert ours.overlay.image == "siderolabs/sbc-lab" and not theirs.overlay.image
