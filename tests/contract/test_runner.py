"""What every runner promises, held against the fake and real engines: local, remote, Podman."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from local_imager.build.container import LABEL_PREFIX
from local_imager.build.request import GIB, MIB, ImagerFailed, ImagerRequest, Limits, Runner
from local_imager.build.runner import DockerRunner
from local_imager.errors import BuildError, Interrupted
from local_imager.events import Message, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Reference
from local_imager.settings import load_settings
from local_imager.sources.trust_entries import policy_from_settings
from local_imager.sources.verify import VerifiedImage, verify_image
from tests.fakerunner import FakeRunner
from tests.labfolder import NEWEST, PREFIX, Lab, find_lab

ENGINES = {"docker": "DOCKER_HOST", "remote": "LAB_REMOTE_ENGINE", "podman": "LAB_PODMAN"}
KINDS = ["fake", *(pytest.param(name, marks=pytest.mark.engine) for name in ENGINES)]


def lab_builder(lab: Lab) -> VerifiedImage:
    """The lab's newest imager, through the gate."""
    reference = Reference.parse(f"{PREFIX}/siderolabs/imager:{NEWEST}")
    source = LayoutSource.open(lab.upstream)
    policy = policy_from_settings(load_settings(config=lab.config, environment={}).trust)
    return verify_image(source, reference, source.resolve(reference), policy)


def owned_containers(runner: DockerRunner) -> list[str]:
    """The engine's containers that this process made; other tests may have some, too."""
    label = LABEL_PREFIX + "owner-process"
    found = [item for item in runner._engine.owned(label) if item.kind == "container"]
    return [one.name for one in found if one.labels[label].partition(".")[0] == str(os.getpid())]


@dataclass
class Bench:
    """A runner with an image, and a folder that it may see."""

    runner: Runner
    image_id: str
    folder: Path
    sink: RecordingSink

    def request(self, script: str, **more: object) -> ImagerRequest:
        """A request that runs a shell script and should write the file ``made``."""
        plain = ImagerRequest(
            subject="contract",
            image_id=self.image_id,
            command=("/bin/sh", "-c", script),
            outputs=frozenset({"made"}),
            output_dir=self.folder / "out",
            limits=Limits(memory_bytes=GIB, scratch_bytes=64 * MIB, timeout_s=60),
        )
        return replace(plain, **more)  # type: ignore[arg-type]

    def run(self, script: str, **more: object) -> tuple[int, str]:
        """Run a script; returns its status and its log."""
        result = self.runner.run(self.request(script, **more), self.sink, threading.Event())
        return result.exit_code, result.log


@pytest.fixture(scope="module", params=KINDS)
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[Runner, str]]:
    if request.param == "fake":
        yield FakeRunner(), "sha256:0"
        return
    variable = ENGINES[request.param]
    host = os.environ.get(variable, "")
    if not host and request.param != "docker":
        pytest.fail(f"{variable} names no engine: run the tests with `make test`", pytrace=False)
    lab = find_lab()
    runner = DockerRunner(host)
    image = lab_builder(lab)
    yield runner, runner.load(image, Layout.open(lab.upstream), None, RecordingSink())
    runner.close()


@pytest.fixture
def bench(loaded: tuple[Runner, str], tmp_path: Path) -> Bench:
    return Bench(*loaded, tmp_path, RecordingSink())


def test_inputs_are_read_and_the_expected_file_arrives(bench: Bench) -> None:
    inputs = bench.folder / "in"
    (inputs / "deep").mkdir(parents=True)
    (inputs / "deep" / "words").write_text("from the input\n")
    for path in (inputs, inputs / "deep"):
        path.chmod(0o755)
    status, _ = bench.run(
        "cat /in/deep/words - > /out/files/made", input_dir=inputs, stdin=b"and stdin\n"
    )
    assert status == 0
    assert (bench.folder / "out" / "made").read_text() == "from the input\nand stdin\n"


def test_a_large_stdin_arrives_whole(bench: Bench) -> None:
    data = b"0123456789abcdef" * 65536
    assert bench.run("cat > /out/files/made", stdin=data)[0] == 0
    assert (bench.folder / "out" / "made").read_bytes() == data


def test_a_program_that_does_not_read_its_input_still_counts(bench: Bench) -> None:
    status, log = bench.run("echo no thanks; exit 3", stdin=b"x" * (1 << 20))
    assert (status, log) == (3, "no thanks\n")


def test_the_log_has_both_streams_and_becomes_events(bench: Bench) -> None:
    status, log = bench.run("echo to stdout; echo to stderr >&2; echo x > /out/files/made")
    assert status == 0
    assert sorted(log.splitlines()) == ["to stderr", "to stdout"]
    shown = {event.text for event in bench.sink.events if isinstance(event, Message)}
    assert shown == {"to stderr", "to stdout"}


def test_a_failure_is_returned_with_its_log(bench: Bench) -> None:
    status, log = bench.run("echo reason >&2; echo half > /out/files/made; exit 7")
    assert (status, log) == (7, "reason\n")


def test_the_environment_is_the_requests(bench: Bench) -> None:
    bench.run("echo $SOURCE_DATE_EPOCH > /out/files/made", env={"SOURCE_DATE_EPOCH": "42"})
    assert (bench.folder / "out" / "made").read_text() == "42\n"


def test_secrets_are_in_neither_log_nor_events(bench: Bench) -> None:
    _, log = bench.run(
        "echo token is hunter2hunter2; echo x > /out/files/made", secrets=("hunter2hunter2",)
    )
    assert log == "token is ***\n"
    assert "hunter2" not in repr(bench.sink.events)


HOSTILE = {
    "symlink": "ln -s /etc/passwd /out/files/made",
    "directory": "mkdir /out/files/made",
    "pipe": "mkfifo /out/files/made",
    "other name": "echo x > /out/files/made; echo x > /out/files/other",
    "hidden name": "echo x > /out/files/made; echo x > /out/files/.profile",
    "below": "mkdir /out/files/deep; echo x > /out/files/deep/made",
    "empty": "touch /out/files/made",
    "too large": "truncate -s 3M /out/files/made",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_unexpected_outputs_are_refused(bench: Bench, script: str) -> None:
    limits = Limits(memory_bytes=GIB, scratch_bytes=64 * MIB, timeout_s=60, max_file_bytes=2 * MIB)
    try:
        status, _ = bench.run(script, limits=limits)
    except BuildError as error:
        assert error.code == "output-unexpected"
    else:
        # The bound on file sizes ends the program itself where it is enforced.
        assert status != 0 and script == HOSTILE["too large"]


def test_a_missing_output_is_said(bench: Bench) -> None:
    with pytest.raises(BuildError) as caught:
        bench.run("true")
    assert caught.value.code == "output-missing"
    assert "made" in caught.value.message


def test_outputs_can_serve_a_second_run(bench: Bench) -> None:
    first = bench.folder / "first"
    disk = {"outputs": frozenset({"disk.raw"}), "output_dir": first, "keep": True}
    script = "truncate -s 8M /out/files/disk.raw; echo end >> /out/files/disk.raw"
    assert bench.run(script, **disk, keep_in_engine=frozenset({"disk.raw"}))[0] == 0
    assert bench.run("tail -c 4 /disk/files/disk.raw > /out/files/made", disk_dir=first)[0] == 0
    bench.runner.release(first)
    assert (bench.folder / "out" / "made").read_text() == "end\n"


def test_a_disk_with_holes_arrives_as_it_is(bench: Bench) -> None:
    script = (
        "truncate -s 40M /out/files/disk.raw;"
        "printf begin | dd of=/out/files/disk.raw conv=notrunc bs=1 2>/dev/null;"
        "printf end | dd of=/out/files/disk.raw conv=notrunc bs=1 seek=20000000 2>/dev/null"
    )
    assert bench.run(script, outputs=frozenset({"disk.raw"}))[0] == 0
    path = bench.folder / "out" / "disk.raw"
    data = path.read_bytes()
    assert len(data) == 40 * MIB
    assert data[:5] == b"begin" and data[20000000:20000003] == b"end"
    assert data.count(0) == len(data) - 8
    assert path.stat().st_blocks * 512 < MIB


def test_a_stop_takes_effect_within_two_seconds(bench: Bench) -> None:
    cancel = threading.Event()
    threading.Timer(0.7, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        bench.runner.run(bench.request("trap '' TERM INT; sleep 50"), bench.sink, cancel)
    assert time.monotonic() - began < 0.7 + 2


def test_a_run_that_hangs_is_ended_with_its_log(bench: Bench) -> None:
    limits = Limits(memory_bytes=GIB, scratch_bytes=64 * MIB, timeout_s=2)
    with pytest.raises(ImagerFailed) as caught:
        bench.run("echo waiting for nothing; sleep 50", limits=limits)
    assert caught.value.code == "timeout"
    assert "waiting for nothing" in caught.value.log


def test_runs_may_go_side_by_side(bench: Bench) -> None:
    done: list[int] = []

    def one(number: int) -> None:
        out = bench.folder / f"out-{number}"
        status, _ = bench.run(f"echo {number} > /out/files/made", output_dir=out)
        done.append(status + (int((out / "made").read_text()) != number))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [0, 0, 0]


def test_a_begun_program_reads_inputs_that_came_after_its_start(bench: Bench) -> None:
    inputs = bench.folder / "in"
    inputs.mkdir()
    inputs.chmod(0o755)
    request = bench.request(
        "cat - /in/late > /out/files/made", input_dir=inputs, stdin=b"profile, then "
    )
    with bench.runner.begin(request, bench.sink, threading.Event()) as begun:
        (inputs / "late").write_text("what came later\n")
        (inputs / "late").chmod(0o644)
        result = begun.finish()
    assert result.exit_code == 0
    assert (bench.folder / "out" / "made").read_text() == "profile, then what came later\n"


def test_a_begun_program_that_is_not_finished_leaves_nothing(bench: Bench) -> None:
    request = bench.request("cat > /out/files/made", stdin=b"never sent")
    with bench.runner.begin(request, bench.sink, threading.Event()):
        pass
    made = bench.folder / "out" / "made"
    assert not made.exists() or made.read_bytes() == b""
    if isinstance(bench.runner, DockerRunner):  # the process of this test is the owner
        assert owned_containers(bench.runner) == []
    assert bench.run("echo next > /out/files/made")[0] == 0
