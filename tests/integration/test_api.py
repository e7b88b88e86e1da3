"""The public API does what the commands do, with typed events and results."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from local_imager import (
    BuildOrder,
    Factory,
    LocalImagerError,
    RecordingSink,
    Store,
    load_settings,
    read_schematic,
    schematic_id,
)
from local_imager.events import Event, Message, StepFinished, StepStarted
from tests.labfolder import OLDEST
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]


def factory_of(program: Program, sink: RecordingSink, cancel: threading.Event) -> Factory:
    settings = load_settings(
        flags={"store": str(program.store)}, config=program.config, environment={}
    )
    return Factory(settings, sink=sink, cancel=cancel)


def order(out: Path | None, *assets: str) -> BuildOrder:
    schematic = read_schematic(str(SCHEMATICS / "kernel-args.yaml"))
    return BuildOrder(schematic, OLDEST, assets, export_to=out)


def steps(events: list[Event], name: str) -> list[StepFinished]:
    return [event for event in events if isinstance(event, StepFinished) and event.step == name]


def test_a_build_with_typed_events(own: Program) -> None:
    sink = RecordingSink()
    factory = factory_of(own, sink, threading.Event())
    wanted = order(own.out, "cmdline-metal-amd64", "nocloud-amd64.qcow2")
    planned = factory.plan(wanted)
    assert [entry.cached for entry in planned] == [False, False]
    results = factory.build(wanted)
    assert [result.asset for result in results] == list(wanted.assets)
    assert {result.schematic_id for result in results} == {schematic_id(wanted.schematic)}
    for result in results:
        assert result.path is not None
        assert result.path.stat().st_size == result.size_bytes
    assert {type(event) for event in sink.events} >= {StepStarted, StepFinished, Message}
    assert steps(sink.events, "build") and steps(sink.events, "convert")
    assert all(step.outcome in ("done", "cached") for step in steps(sink.events, "build"))
    sink.events.clear()
    again = factory.build(order(None, "cmdline-metal-amd64"))
    assert again[0].cached and again[0].path is None
    assert [step.outcome for step in steps(sink.events, "build")] == ["cached"]
    stored = Store.open(own.store).find_build(again[0].build_key)
    assert stored is not None and stored.digest == again[0].digest


def test_a_build_is_cancelled_by_its_event(own: Program) -> None:
    cancel = threading.Event()
    cancel.set()
    factory = factory_of(own, RecordingSink(), cancel)
    with pytest.raises(LocalImagerError) as stopped:
        factory.build(order(None, "nocloud-amd64.raw.zst"))
    assert stopped.value.exit_code == 130
    own.fsck()


def test_an_error_has_a_code_and_a_hint(own: Program) -> None:
    factory = factory_of(own, RecordingSink(), threading.Event())
    with pytest.raises(LocalImagerError) as refused:
        factory.build(order(None, "metal-amd64.ios"))
    assert refused.value.exit_code == 2
    assert refused.value.code and refused.value.hint
