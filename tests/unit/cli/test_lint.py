"""The command ``schematic lint``: output, exit codes and the hook for a catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from local_imager.cli import lint as module
from local_imager.cli.lint import lint
from local_imager.errors import InputError
from tests.unit.profile.vectors import catalogue

WARNS = "customization: {extraKernelArgs: [a, a]}\n"
FAILS = "customization: {embeddedMachineConfiguration: 'a: b'}\n"
NAMES = "customization: {systemExtensions: {officialExtensions: [siderolabs/nope]}}\n"


@pytest.fixture
def with_catalogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "load_catalogue", lambda obj, version: catalogue(str(version)))
    yield


def run(tmp_path: Path, text: str, *arguments: str) -> Result:
    path = tmp_path / "schematic.yaml"
    path.write_text(text)
    return CliRunner().invoke(lint, [str(path), *arguments])


def test_warnings_do_not_fail_unless_asked_to(tmp_path: Path) -> None:
    found = run(tmp_path, WARNS, "--version", "v1.13.0")
    assert found.exit_code == 0
    assert "customization.extraKernelArgs: 'a' stands there 2 times" in found.output
    assert run(tmp_path, WARNS, "--strict").exit_code == 2
    assert run(tmp_path, "{}\n", "--strict").exit_code == 0


def test_errors_fail(tmp_path: Path) -> None:
    found = run(tmp_path, FAILS, "--version", "v1.9.0", "--asset", "metal-amd64.iso")
    assert found.exit_code == 2
    assert "error" in found.output
    assert "(metal-amd64.iso)" in found.output
    assert run(tmp_path, FAILS, "--version", "v1.9.0", "--asset", "kernel-amd64").exit_code == 0


def test_json_is_for_programs(tmp_path: Path) -> None:
    found = run(tmp_path, FAILS, "--version", "v1.9.0", "--asset", "metal-amd64.iso", "--json")
    document = json.loads(found.stdout)
    assert found.exit_code == 2
    assert document["version"] == "v1.9.0"
    assert document["assets"] == ["metal-amd64.iso"]
    assert document["names_looked_up"] is False
    assert {item["severity"] for item in document["findings"]} == {"error"}
    assert set(document["findings"][0]) == {"severity", "field", "asset", "message"}


def test_a_catalogue_is_used_when_someone_has_one(tmp_path: Path, with_catalogue: None) -> None:
    found = run(tmp_path, NAMES, "--version", "v1.13.0", "--json")
    assert found.exit_code == 2
    assert json.loads(found.stdout)["names_looked_up"] is True


def test_without_a_catalogue_it_says_that_names_were_not_looked_up(tmp_path: Path) -> None:
    found = run(tmp_path, NAMES, "--version", "v1.13.0")
    assert found.exit_code == 0
    assert "not looked up" in found.stderr


def test_a_schematic_with_an_overlay_is_looked_at_for_arm64(tmp_path: Path) -> None:
    text = "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}\n"
    document = json.loads(run(tmp_path, text, "--json").stdout)
    assert document["assets"] == ["metal-arm64.iso", "metal-arm64.raw.zst", "installer-arm64.tar"]
    assert document["findings"] == []


@pytest.mark.parametrize("arguments", [["--version", "v1.9"], ["--asset", "metl-amd64.iso"]])
def test_bad_arguments_are_input_errors(tmp_path: Path, arguments: list[str]) -> None:
    found = run(tmp_path, "{}\n", *arguments)
    assert isinstance(found.exception, InputError)


def test_standard_input_is_read() -> None:
    found = CliRunner().invoke(lint, ["-", "--version", "v1.13.0"], input=WARNS)
    assert found.exit_code == 0
    assert "2 times" in found.output
