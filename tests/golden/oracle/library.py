"""Build and ask the Go program that answers with the factory's own YAML library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MODULE = "go.yaml.in/yaml/v4"

# The change of yaml/go-yaml pull request 380, which the vectors' library has and rc.6 does not:
# texts that YAML 1.1 would take for something else come in double quotes.
PATCHED_FILE = "internal/libyaml/representer.go"
PATCH = ("style = SingleQuotedStyle", "style = DoubleQuotedStyle")

BUILD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What the library made of an input: the text, or None when it refuses.

    ``stable`` is false where the library writes the keys in another order each time.
    """

    canonical: str | None
    stable: bool


def build_oracle(directory: Path) -> Path:
    """Build the program in ``directory`` and return its path.

    Needs Go and, the first time, a module proxy. Raises CalledProcessError when it fails.
    """
    source = directory / "oracle"
    source.mkdir(parents=True)
    for name in ("main.go", "go.mod", "go.sum"):
        shutil.copy(HERE / name, source / name)
    # Downloading by the committed go.sum is what checks the library.
    listed = _go(source, "mod", "download", "-json", MODULE)
    library = directory / "yaml"
    shutil.copytree(json.loads(listed)["Dir"], library, copy_function=shutil.copyfile)
    for folder in library.glob("**/"):
        folder.chmod(0o755)
    patched = library / PATCHED_FILE
    text = patched.read_text(encoding="utf-8")
    if text.count(PATCH[0]) != 1:
        raise ValueError(f"{PATCHED_FILE} does not hold the one place to change")
    patched.write_text(text.replace(*PATCH), encoding="utf-8")
    _go(source, "mod", "edit", "-replace", f"{MODULE}={library}")
    program = directory / "schematic-oracle"
    _go(source, "build", "-o", str(program), ".")
    return program


def ask_oracle(program: Path, inputs: Sequence[bytes]) -> list[Answer]:
    """Return the library's answers to the inputs, in order."""
    lines = [json.dumps({"input_base64": b64encode(data).decode()}) for data in inputs]
    finished = subprocess.run(
        [str(program)], input="\n".join(lines), capture_output=True, encoding="utf-8", check=True
    )
    replies = [json.loads(line) for line in finished.stdout.splitlines()]
    if len(replies) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs, {len(replies)} answers")
    return [Answer(reply.get("canonical"), not reply.get("unstable")) for reply in replies]


def _go(directory: Path, *arguments: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    finished = subprocess.run(
        ["go", *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return finished.stdout
