"""The lab for its own tests: built when it is not there, which is quick when it is."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from lab.place import Place, find_place


@pytest.fixture(scope="session")
def lab_place() -> Place:
    """The built lab of this machine."""
    subprocess.run([sys.executable, "-m", "lab", "build"], check=True)
    return find_place()


def lab_run(
    *options: str, command: Sequence[str], timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a command by `lab run` and return what came of it."""
    argv = [sys.executable, "-m", "lab", "run", *options, "--", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
