"""The lab as the tests see it: a folder with signed images, their key, and programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.place import find_place

PREFIX = "lab.local-imager.test"
NEWEST, MIDDLE, OLDEST = "v1.13.0", "v1.12.1", "v1.9.0"


@dataclass(frozen=True)
class Lab:
    """Where the parts of the lab lie."""

    root: Path

    @property
    def upstream(self) -> Path:
        """The OCI layout with every signed image."""
        return self.root / "upstream"

    @property
    def config(self) -> Path:
        """Settings that name the lab as upstream and trust its key."""
        return self.root / "lab.toml"

    def crane(self, *arguments: str | Path) -> str:
        """Run crane and return what it printed."""
        return run(self.root / "bin" / "crane", *arguments)

    def cosign(self, *arguments: str | Path) -> str:
        """Run cosign with an empty key password and return what it printed."""
        env = {**os.environ, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"}
        return run(self.root / "bin" / "cosign", *arguments, env=env)


def find_lab() -> Lab:
    """Return the lab; the test fails (never skips) when it is not built."""
    lab = Lab(find_place().root)
    missing = [
        name for name in ("upstream/index.json", "lab.toml") if not (lab.root / name).exists()
    ]
    if missing:
        pytest.fail(f"the lab is not built ({lab.root}): run `make lab`", pytrace=False)
    return lab


def run(*argv: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program that must succeed and return its standard output."""
    done = subprocess.run(
        [str(part) for part in argv], capture_output=True, text=True, env=env, cwd=cwd, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, argv))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def big_folder(lab: Lab, name: str) -> Iterator[Path]:
    """Yield a folder in the lab's file system (disk images do not fit into a /tmp in memory).

    It is removed afterwards; what killed test runs left behind is removed first.
    """
    parent = lab.root / "test-folders"
    parent.mkdir(exist_ok=True)
    for old in parent.iterdir():
        owner = old.name.partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def linked_copy(source: Path, target: Path) -> Path:
    """Copy a layout with hard links for its blobs; replace a file, never write into one."""
    shutil.copytree(source, target, copy_function=os.link)
    index = target / "index.json"
    data = index.read_bytes()
    index.unlink()
    index.write_bytes(data)
    return target
