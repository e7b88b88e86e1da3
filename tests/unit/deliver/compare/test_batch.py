"""Building a set and comparing each asset: all are tried, the worst counts, results are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from local_imager.deliver.compare.batch import Against, BatchEntry, BatchResult, compare_batch
from local_imager.deliver.compare.pair import ARTIFACT_COMPARISON
from local_imager.deliver.compare.sides import SideContext
from local_imager.errors import (
    BuildError,
    ExitCode,
    HostError,
    InputError,
    Interrupted,
    LocalImagerError,
    NotFound,
    VerificationRefused,
)
from local_imager.events import Message, RecordingSink
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.values import BuildOrder, BuildResult
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from local_imager.store.fsck import check
from local_imager.store.records import AssetRecord
from local_imager.store.store import Store
from tests.factoryserver import FactoryServer, factory_server

SCHEMATIC = parse_schematic(b"customization:\n  extraKernelArgs: [quiet]\n")
ID = str(schematic_id(SCHEMATIC))
METAL, NOCLOUD = "cmdline-metal-amd64", "cmdline-nocloud-amd64"
TEXTS = {METAL: "talos.platform=metal quiet", NOCLOUD: "talos.platform=nocloud quiet"}


@dataclass
class Builder:
    """Stands in for the pipeline: "builds" texts, and fails where it is told to."""

    store: Store
    faults: dict[str, LocalImagerError] = field(default_factory=dict)
    orders: list[tuple[str, ...]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=lambda: dict(TEXTS))

    def build(self, order: BuildOrder) -> list[BuildResult]:
        self.orders.append(order.assets)
        for asset in order.assets:
            if asset in self.faults:
                raise self.faults[asset]
        return [self._built(order, asset) for asset in order.assets]

    def _built(self, order: BuildOrder, asset: str) -> BuildResult:
        path = self.store.path / "made"
        path.write_text(self.texts[asset])
        key = f"{len(self.texts[asset]):064x}"
        stored = self.store.put_asset(AssetRecord(ID, order.version, asset, key, path))
        return BuildResult(
            asset, None, stored.digest, stored.size_bytes, ID, order.version, key,
            stored.manifest_digest, False, 0.1,
        )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def server() -> Iterator[FactoryServer]:
    with factory_server() as running:
        running.serve(ID, "v1.13.0", {asset: text.encode() for asset, text in TEXTS.items()})
        yield running


@pytest.fixture
def builder(store: Store) -> Builder:
    return Builder(store)


Run = Callable[..., BatchResult]


@pytest.fixture
def run(builder: Builder, server: FactoryServer, store: Store) -> Run:
    """Compare with the factory unless told otherwise."""
    settings = Settings(store=store.path, factory_url=server.url)
    context = SideContext(settings, lambda: store, sleep=lambda _: None)

    def compare(against: str = "factory:", assets: Any = (METAL, NOCLOUD), **more: Any) -> Any:
        order = BuildOrder(SCHEMATIC, "v1.13.0", tuple(assets))
        return compare_batch(order, against, cast(Factory, builder), context, **more)

    return compare


def verdicts(result: BatchResult) -> list[str]:
    return [entry.word for entry in result.entries]


def test_a_set_is_built_in_one_go_and_each_is_compared(
    run: Run, builder: Builder, server: FactoryServer, store: Store
) -> None:
    result = run()
    assert verdicts(result) == ["identical", "identical"]
    assert result.exit_code is ExitCode.OK
    assert builder.orders == [(METAL, NOCLOUD)]
    assert server.asked("POST") == []
    document = json.loads(json.dumps(result.as_dict()))
    assert document["counts"]["identical"] == 2
    assert document["entries"][0]["against"]["asked"] == f"factory:{ID}/v1.13.0/{METAL}"
    assert check(store).clean


def test_the_result_is_attached_to_our_asset_once(
    run: Run, server: FactoryServer, store: Store
) -> None:
    server.files[f"{ID}/v1.13.0/{METAL}"] = b"talos.platform=metal noisy"
    first, again = run(assets=[METAL]), run(assets=[METAL])
    assert verdicts(first) == verdicts(again) == ["different"]
    assert first.exit_code is ExitCode.COMPARISON_DIFFERS
    asset = store.show(f"{ID}/v1.13.0/{METAL}")
    (kept,) = store.read_referrers(asset, ARTIFACT_COMPARISON)
    assert json.loads(kept) == first.entries[0].as_dict()["comparison"]
    (listed,) = store.layout.referrers(asset.manifest_digest, ARTIFACT_COMPARISON)
    assert listed.artifact_type == "application/vnd.local-imager.comparison.v1+json"


def test_what_cannot_be_fetched_does_not_stop_the_rest(run: Run, server: FactoryServer) -> None:
    del server.files[f"{ID}/v1.13.0/{METAL}"]
    result = run()
    assert verdicts(result) == ["failed", "identical"]
    assert isinstance(result.entries[0].error, NotFound)
    assert result.entries[0].built is not None
    assert result.exit_code is ExitCode.INPUT_INVALID


def test_what_cannot_be_built_does_not_stop_the_rest(run: Run, builder: Builder) -> None:
    builder.faults = {METAL: BuildError("no luck")}
    result = run()
    assert verdicts(result) == ["failed", "identical"]
    assert builder.orders == [(METAL, NOCLOUD), (METAL,), (NOCLOUD,)]
    assert result.exit_code is ExitCode.FAILED
    error = result.as_dict()["entries"][0]["error"]
    assert error["code"] == "build-failed"


def test_without_an_engine_nothing_is_tried_twice(run: Run, builder: Builder) -> None:
    builder.faults = {METAL: HostError("no engine")}
    result = run()
    assert verdicts(result) == ["failed", "failed"]
    assert len(builder.orders) == 1
    assert result.exit_code is ExitCode.HOST_UNABLE


def test_ctrl_c_ends_it(run: Run, builder: Builder) -> None:
    builder.faults = {NOCLOUD: Interrupted("stopped")}
    with pytest.raises(Interrupted):
        run()


def test_a_schematic_that_the_factory_does_not_know_is_sent_when_asked_for(
    run: Run, server: FactoryServer
) -> None:
    server.schematics.clear()
    result = run()
    assert {entry.error.code for entry in result.entries if entry.error} == {"schematic-unknown"}
    assert server.asked("POST") == []
    assert verdicts(run(upload=True)) == ["identical", "identical"]
    assert server.asked("POST") == ["/schematics"]
    with pytest.raises(InputError, match="names none"):
        run("store", upload=True)


def test_sending_a_machine_configuration_is_told(builder: Builder, server: FactoryServer) -> None:
    schematic = parse_schematic(b"customization:\n  embeddedMachineConfiguration: 'a: 1'\n")
    context = SideContext(Settings(factory_url=server.url), lambda: builder.store)
    order, sink = BuildOrder(schematic, "v1.13.0", (METAL,)), RecordingSink()
    factory = cast(Factory, builder)
    compare_batch(order, "factory:", factory, context, upload=True, sink=sink)
    texts = [event.text for event in sink.events if isinstance(event, Message)]
    assert f"the schematic holds a machine configuration; {server.address} learns it" in texts


def test_nothing_is_sent_offline(run: Run, builder: Builder, server: FactoryServer) -> None:
    context = SideContext(Settings(factory_url=server.url), lambda: builder.store, offline=True)
    order = BuildOrder(SCHEMATIC, "v1.13.0", (METAL,))
    with pytest.raises(InputError, match="do not go together"):
        compare_batch(order, "factory:", cast(Factory, builder), context, upload=True)
    assert server.requests == [] and builder.orders == []


@pytest.mark.parametrize("place", ["{asset}", "v1.13.0/{asset}", "{short}/v1.13.0/{asset}"])
def test_a_directory_of_files(run: Run, tmp_path: Path, place: str) -> None:
    for asset, text in TEXTS.items():
        path = tmp_path / "files" / place.format(asset=asset, short=ID[:12])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert verdicts(run(str(tmp_path / "files"))) == ["identical", "identical"]
    path.unlink()
    result = run(str(tmp_path / "files"))
    assert verdicts(result) == ["identical", "failed"]
    assert NOCLOUD in str(result.entries[1].error)


def test_a_pattern(run: Run, tmp_path: Path) -> None:
    for asset, text in TEXTS.items():
        (tmp_path / f"{asset}-v1.13.0-{ID}").write_text(text)
    assert verdicts(run(f"{tmp_path}/{{asset}}-{{version}}-{{id}}")) == ["identical", "identical"]
    assert verdicts(run("factory:{id}/{version}/{asset}")) == ["identical", "identical"]


def test_one_asset_against_one_side(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(TEXTS[METAL])
    assert verdicts(run(str(tmp_path / "other"), [METAL])) == ["identical"]


def test_the_store_means_what_it_had_before(run: Run, builder: Builder) -> None:
    assert verdicts(run("store")) == ["failed", "failed"]
    assert verdicts(run("store")) == ["identical", "identical"]
    builder.texts[METAL] += " more"
    assert verdicts(run("store")) == ["different", "identical"]


@pytest.mark.parametrize("text", ["", "nowhere", "factory", "stores", "factory:x"])
def test_against_what(text: str) -> None:
    if text == "factory":
        assert Against.parse(text, [METAL]).text == "factory:"
        return
    with pytest.raises(InputError, match="names no counterparts"):
        Against.parse(text, [METAL, NOCLOUD])


def entries(*errors: LocalImagerError | None) -> BatchResult:
    found = tuple(BatchEntry("a", error=error) for error in errors)
    return BatchResult(ID, "v1.13.0", "factory:", False, found)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((NotFound("1"), BuildError("2")), ExitCode.FAILED),
        ((BuildError("1"), HostError("2")), ExitCode.HOST_UNABLE),
        ((VerificationRefused("1"), HostError("2")), ExitCode.VERIFICATION_REFUSED),
        ((), ExitCode.OK),
    ],
)
def test_the_worst_counts(errors: tuple[LocalImagerError, ...], code: ExitCode) -> None:
    assert entries(*errors).exit_code is code


def test_strict_passes_nothing_but_equal_bytes(run: Run, server: FactoryServer) -> None:
    # A line end more is the same command line.
    server.files[f"{ID}/v1.13.0/{METAL}"] = TEXTS[METAL].encode() + b"\n"
    plain, strict = run(assets=[METAL]), run(assets=[METAL], strict=True)
    assert plain.entries[0].word == strict.entries[0].word != "identical"
    assert strict.exit_code is ExitCode.COMPARISON_DIFFERS
