"""Each parser of untrusted bytes stands a short attack; longer: ``python -m tests.fuzz NAME``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from local_imager.errors import SourceError
from tests.fuzz.driver import CORPUS, Fault, Harness, attack_plainly, guarded
from tests.fuzz.harnesses import HARNESSES

ROOT: Final = Path(__file__).parents[3]
SECONDS: Final = 1
MAX_CORPUS_BYTES: Final = 500_000


@pytest.fixture(scope="module")
def attack_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attack everything, two at a time, and return the folder of what was said."""
    folder = tmp_path_factory.mktemp("fuzz")
    options = ["--seconds", str(SECONDS), "--jobs", "2", "--logs", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "all", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        capture_output=True,
        check=False,
    )
    return folder


@pytest.mark.parametrize("name", HARNESSES)
def test_a_bounded_attack_finds_nothing(name: str, attack_logs: Path) -> None:
    said = (attack_logs / f"{name}.log").read_text(errors="replace")
    tried = re.search(r"number_of_executed_units: (\d+)|(\d+) inputs", said)
    assert tried and int(tried[1] or tried[2]) > 0, said
    assert "ERROR: libFuzzer" not in said and "Traceback" not in said, said[-6000:]


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=lambda harness: harness.name)
def test_every_seed_is_read_or_refused(harness: Harness) -> None:
    seeds = sorted(harness.seeds.iterdir())
    assert seeds
    for seed in seeds:
        guarded(harness)(seed.read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        *("bundle", "statement", "logentry", "certificate", "root", "payload"),
        *("schematic", "catalogue", "header", "dialogue", "inventory", "delta"),
        "factory",
        *("bundlefile", "bundlepacked", "bundlemanifest"),
        *("packed", "cpio", "initramfs", "squashfs", "erofs", "kernel", "grubcfg"),
        *("gpt", "meta", "fat", "xfs", "qcow2", "vhd", "vmdk"),
        *("pe", "pesignature", "pcrsig", "iso", "tarfile", "imagearchive"),
    ],
)
def test_a_seed_is_accepted_so_that_the_attack_gets_behind_the_checks(name: str) -> None:
    accepted = 0
    for seed in sorted(HARNESSES[name].seeds.iterdir()):
        try:
            HARNESSES[name].run(seed.read_bytes())
        except Exception as error:
            assert error.args
            continue
        accepted += 1
    assert accepted


def test_the_corpus_stays_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files if path.parent != CORPUS} == set(HARNESSES)
    assert sum(path.stat().st_size for path in files) < MAX_CORPUS_BYTES


# The driver itself is able to fail.


def _attack(run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(tmp_path)
    harness = Harness("payload", run)  # type: ignore[arg-type]
    return attack_plainly(harness, seconds=20, runs=3000)


def test_a_planted_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(data: bytes) -> None:
        data.decode()

    with pytest.raises(UnicodeDecodeError):
        _attack(weak, tmp_path, monkeypatch)
    assert (tmp_path / "crash-payload").read_bytes()


def test_a_refusal_that_cannot_be_shown_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pours(data: bytes) -> None:
        raise SourceError(f"cannot read {data * 100!r}")

    with pytest.raises(Fault, match="characters"):
        _attack(pours, tmp_path, monkeypatch)


def test_an_input_that_costs_too_much_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fuzz.driver.MAX_INPUT_S", 0.01)

    def slow(_data: bytes) -> None:
        sum(range(3_000_000))

    with pytest.raises(Fault, match="took"):
        _attack(slow, tmp_path, monkeypatch)


def test_the_plain_engine_tries_as_many_as_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _attack(HARNESSES["payload"].run, tmp_path, monkeypatch) == 3000
