"""The imager's output: nothing secret in it, nothing unbounded, and progress out of it."""

from __future__ import annotations

import random

import pytest

from local_imager.build.imagerlog import (
    MAX_LINE_CHARS,
    STAGE_COUNT,
    BoundedText,
    ImagerLog,
    Redactor,
)
from local_imager.events import Message, Progress, RecordingSink

# As an imager writes it: progress, the whole profile, progress.
RUN = """\
assembling the finalized profile...
profile ready:
arch: amd64
platform: metal
secureboot: false
version: v1.13.0
customization:
  extraKernelArgs:
    - password=correct-horse
  embeddedMachineConfiguration: |
    machine:
      token: battery-staple

      ca: c3RhcGxl
input:
  kernel:
    path: /in/vmlinuz
output:
  kind: uki
kernel command line: quiet password=correct-horse
rebuilding initramfs with system extensions...
\textracting /in/tar...
UKI ready
output asset path: /out/files/x
"""


def feed(text: str | bytes, size: int = 7, **more: object) -> tuple[str, RecordingSink]:
    sink = RecordingSink()
    log = ImagerLog("asset", sink, **more)  # type: ignore[arg-type]
    data = text.encode() if isinstance(text, str) else text
    for start in range(0, len(data), size):
        log.feed(data[start : start + size])
    return log.finish(), sink


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_the_profile_dump_never_gets_into_the_log(size: int) -> None:
    log, sink = feed(RUN, size, hide_command_line=True)
    for secret in ("correct-horse", "battery-staple", "c3RhcGxl", "/in/vmlinuz"):
        assert secret not in log
        assert secret not in repr(sink.events)
    assert "[profile of 17 lines: see the build record]" in log
    assert "kernel command line: (not shown" in log
    assert "    extracting /in/tar..." in log


def test_without_secrets_the_command_line_is_shown() -> None:
    assert "kernel command line: quiet password" in feed(RUN)[0]


def test_a_dump_at_the_end_of_the_output_is_cut_too() -> None:
    log, _ = feed("profile ready:\narch: amd64\n  secret: battery-staple")
    assert "battery" not in log
    assert "profile of 2 lines" in log


def test_a_line_of_the_dump_that_is_too_long_does_not_end_it() -> None:
    # Cut in two, its second half would not be indented and would pass for a message.
    line = "  embeddedMachineConfiguration: " + "battery-staple " * 5000
    log, sink = feed(
        f"profile ready:\ncustomization:\n{line}\n  more: battery-staple\nnext\n", 1000
    )
    assert "battery" not in log + repr(sink.events)
    assert log.endswith("next\n")


def test_secrets_are_masked_wherever_they_turn_up() -> None:
    log, sink = feed(
        "error: line 3: token: battery-staple is wrong\n", secrets=("x: 1\ntoken: battery-staple",)
    )
    assert log == "error: line 3: *** is wrong\n"
    assert "battery" not in repr(sink.events)


def test_short_words_are_not_taken_for_secrets() -> None:
    assert Redactor(("a\nquiet",))("a quiet word") == "a quiet word"


def test_control_characters_cannot_reach_a_terminal() -> None:
    log, sink = feed("\x1b[2Jgone\rforged\x07\n")
    assert not any(c in log + str(sink.events) for c in "\x1b\r\x07")


def test_bytes_that_are_no_text_are_kept_readable() -> None:
    assert "caf" in feed("café ".encode() + b"\xff\xfe\n", 1)[0]


def test_a_long_line_is_cut_and_the_next_one_is_whole() -> None:
    log, _ = feed("x" * (3 * MAX_LINE_CHARS) + "\nnext\n", 1000)
    first, second = log.splitlines()
    assert len(first) <= MAX_LINE_CHARS + 1
    assert second == "next"


def test_progress_counts_forward_only() -> None:
    _, sink = feed(RUN)
    steps = [event.done for event in sink.events if isinstance(event, Progress)]
    assert steps == sorted(set(steps)) and steps[-1] < STAGE_COUNT
    assert {e.level for e in sink.events if isinstance(e, Message)} == {"log"}


def test_a_flood_keeps_its_first_and_last_words() -> None:
    kept = BoundedText(head_bytes=200, tail_bytes=300)
    generator = random.Random(1)
    for number in range(5000):
        kept.add(f"{number} " + "x" * generator.randrange(30))
    text = kept.text()
    assert len(text) < 600
    assert text.startswith("0 ") and "\n4999 " in text
    left_out = next(line for line in text.splitlines() if line.endswith("left out]"))
    assert len(text.splitlines()) - 1 + int(left_out[1:].split()[0]) == 5000
