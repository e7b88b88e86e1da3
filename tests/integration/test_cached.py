"""A build that finds everything in the store: what makes it quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.labfolder import NEWEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

# What only a build that is really made needs, or one with a lock, an overlay, a download.
_UNUSED = (
    "docker",
    "httpx",
    "rich",
    "yaml",
    "zstandard",
    "local_imager.build.assemble",
    "local_imager.build.runner",
    "local_imager.pipeline.locking",
    "local_imager.sources.fetch",
    "local_imager.sources.keyless",
)
_RUN = """
import sys
from local_imager.cli.main import run
code = run(sys.argv[1:])
print("imported:", *sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def test_it_imports_nothing_that_only_a_build_needs(warm: Program) -> None:
    schematic = SCHEMATICS / "extensions.yaml"
    warm.build(schematic, "cmdline-metal-amd64", version=NEWEST)
    words = warm.argv("build", schematic, "cmdline-metal-amd64", "--version", NEWEST, "--no-export")
    place = next(number for number, word in enumerate(words) if word.endswith("local_imager"))
    argv = [sys.executable, "-c", _RUN, *words[place + 1 :]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "cached" in done.stdout, done.stderr
    imported = set(done.stderr.partition("imported:")[2].split())
    assert "local_imager.pipeline.factory" in imported
    assert imported.isdisjoint(_UNUSED), sorted(imported & set(_UNUSED))
