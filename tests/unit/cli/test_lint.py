"""The command ``schematic lint``: output, exit codes and where names are looked up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from local_imager.cli.lint import lint
from local_imager.cli.progress import PlainSink
from local_imager.errors import InputError, SourceError
from local_imager.profile.model import Catalogue
from local_imager.profile.version import TalosVersion
from tests.unit.profile.vectors import catalogue

WARNS = "customization: {extraKernelArgs: [a, a]}\n"
FAILS = "customization: {embeddedMachineConfiguration: 'a: b'}\n"
NAMES = "customization: {systemExtensions: {officialExtensions: [siderolabs/nope]}}\n"


class FakeSources:
    """Sources that have the golden catalogue, or that nothing can be read from."""

    def __init__(self, *, reachable: bool) -> None:
        self._reachable = reachable

    def catalogue(self, version: TalosVersion) -> Catalogue:
        if not self._reachable:
            raise SourceError("no registry answers")
        return catalogue(str(version))


class FakeFactory:
    """A factory whose store is empty and whose upstream may be reached."""

    def __init__(self, *, reachable: bool) -> None:
        self.offline_sources = FakeSources(reachable=False)
        self.sources = FakeSources(reachable=reachable)


def run(
    tmp_path: Path, text: str, *arguments: str, reachable: bool = False, stdin: str = ""
) -> Result:
    path = tmp_path / "schematic.yaml"
    path.write_text(text)
    app = SimpleNamespace(factory=FakeFactory(reachable=reachable), sink=PlainSink())
    place = "-" if stdin else str(path)
    return CliRunner().invoke(lint, [place, *arguments], obj=app, input=stdin or None)


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
    assert document["names_looked_up"] is True  # no name to look up
    assert {item["severity"] for item in document["findings"]} == {"error"}
    assert set(document["findings"][0]) == {"severity", "field", "asset", "message"}


def test_names_are_looked_up_where_a_catalogue_can_be_had(tmp_path: Path) -> None:
    found = run(tmp_path, NAMES, "--version", "v1.13.0", "--json", reachable=True)
    assert found.exit_code == 2
    assert json.loads(found.stdout)["names_looked_up"] is True


@pytest.mark.parametrize(("reachable", "arguments"), [(False, []), (True, ["--offline"])])
def test_without_a_catalogue_it_says_that_names_were_not_looked_up(
    tmp_path: Path, reachable: bool, arguments: list[str]
) -> None:
    found = run(tmp_path, NAMES, "--version", "v1.13.0", *arguments, reachable=reachable)
    assert found.exit_code == 0
    assert "linted without a catalogue: no registry answers" in found.stderr
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


def test_standard_input_is_read(tmp_path: Path) -> None:
    found = run(tmp_path, "", "--version", "v1.13.0", stdin=WARNS)
    assert found.exit_code == 0
    assert "2 times" in found.output
