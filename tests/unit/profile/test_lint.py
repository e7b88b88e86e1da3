"""Findings about a schematic by itself and with a catalogue."""

from __future__ import annotations

import pytest

from local_imager.profile.assetname import AssetName
from local_imager.profile.effects import (
    ARGS,
    EMBEDDED,
    ENROLL_KEYS,
    EXTENSIONS,
    META,
    OVERLAY,
    SECTOR_SIZE,
    Finding,
)
from local_imager.profile.lint import lint
from local_imager.schematic.model import Schematic
from tests.unit.profile.vectors import catalogue, schematic, version

ISO = "metal-amd64.iso"


def findings(text: str, *assets: str, tag: str = "v1.13.0", known: bool = False) -> list[Finding]:
    names = [AssetName.parse(name) for name in assets]
    return lint(schematic(text), version(tag), names, catalogue(tag) if known else None)


def args(*values: str) -> str:
    return f"customization: {{extraKernelArgs: {list(values)!r}}}"


def test_a_schematic_without_faults_has_no_findings() -> None:
    assert lint(Schematic(), version("v1.13.0"), [AssetName.parse(ISO)], None) == []
    good = "customization: {extraKernelArgs: [net.ifnames=0], meta: [{key: 12, value: x}]}"
    assert findings(good, ISO, "metal-amd64.raw.zst", known=True) == []


@pytest.mark.parametrize(
    ("text", "tag", "asset", "severity", "field", "words"),
    [
        (args("a=b", "a=b"), "v1.13.0", ISO, "warning", ARGS, "2 times"),
        (args("a=1", "a=2"), "v1.13.0", ISO, "", "", ""),
        (args(" "), "v1.13.0", ISO, "warning", ARGS, "empty"),
        (args("a b"), "v1.13.0", ISO, "warning", ARGS, "space"),
        (args('a="b c"'), "v1.13.0", ISO, "", "", ""),
        (args("a=b", "-a"), "v1.13.0", ISO, "warning", ARGS, "removes the 'a=…'"),
        (args("a=b", "-a=b"), "v1.13.0", ISO, "warning", ARGS, "removes"),
        (args("a=b", "-a=c"), "v1.13.0", ISO, "", "", ""),
        (args("-a", "a=b"), "v1.13.0", ISO, "", "", ""),
        (args("a", "-"), "v1.13.0", ISO, "", "", ""),
        (args("talos.platform=aws"), "v1.13.0", ISO, "warning", ARGS, "metal off"),
        (args("talos.platform=aws"), "v1.13.0", "aws-amd64.iso", "", "", ""),
        (args("x" * 1600), "v1.13.0", ISO, "warning", ARGS, "2048"),
        (args("x" * 1600), "v1.13.0", "metal-amd64.raw", "", "", ""),
        ("customization: {meta: [{key: 6, value: x}]}", "v1.13.0", ISO, "warning", META, "own"),
        (
            "customization: {meta: [{key: 12, value: x}, {key: 12, value: y}]}",
            "v1.13.0",
            ISO,
            "warning",
            META,
            "last one",
        ),
        (
            "customization: {meta: [{key: 10, value: x}]}",
            "v1.13.0",
            "nocloud-amd64.iso",
            "warning",
            META,
            "metal",
        ),
        (
            "customization: {diskImage: {sectorSize: 1000}}",
            "v1.13.0",
            "kernel-amd64",
            "warning",
            SECTOR_SIZE,
            "4096",
        ),
        (
            "customization: {secureboot: {enrollKeys: banana}}",
            "v1.13.0",
            "metal-amd64-secureboot.iso",
            "error",
            ENROLL_KEYS,
            "if-safe",
        ),
        (
            "customization: {embeddedMachineConfiguration: 'a: b'}",
            "v1.11.5",
            ISO,
            "error",
            EMBEDDED,
            "v1.12.0",
        ),
        (
            "customization: {embeddedMachineConfiguration: '  '}",
            "v1.12.0",
            ISO,
            "warning",
            EMBEDDED,
            "empty",
        ),
        (
            "overlay: {name: rpi_5, image: siderolabs/sbc-raspberrypi}",
            "v1.12.0",
            "metal-arm64.raw",
            "warning",
            OVERLAY,
            "v1.12.3",
        ),
        (
            "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}",
            "v1.6.8",
            "metal-arm64.raw",
            "error",
            OVERLAY,
            "v1.7.0",
        ),
        (
            "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}",
            "v1.13.0",
            ISO,
            "warning",
            OVERLAY,
            "arm64 machine",
        ),
        ("overlay: {image: a/b}", "v1.13.0", ISO, "warning", OVERLAY, "without a name"),
        ("{}", "v1.4.8", "metal-amd64-secureboot.iso", "error", "version", "v1.5.0"),
        ("{}", "v1.1.0", ISO, "error", "version", "v1.2.0"),
        ("{}", "v1.13.0", "nocloud-amd64.raw", "info", EXTENSIONS, "qemu-guest-agent"),
        ("{}", "v1.13.0", "vmware-amd64.ova", "info", EXTENSIONS, "vmtoolsd-guest-agent"),
    ],
)
def test_one_fault_one_finding(
    text: str, tag: str, asset: str, severity: str, field: str, words: str
) -> None:
    found = [
        item
        for item in findings(text, asset, tag=tag)
        if item.severity != "info" or severity == "info"
    ]
    if not severity:
        assert found == []
        return
    assert [(item.severity, item.field) for item in found] == [(severity, field)]
    assert words in found[0].message


@pytest.mark.parametrize(
    ("names", "severity", "words"),
    [
        ("[siderolabs/nope]", "error", "does not exist for Talos v1.13.0"),
        ("[siderolabs/qemu-guestagent]", "error", "did you mean siderolabs/qemu-guest-agent"),
        ("[siderolabs/i915-ucode]", "info", "is called siderolabs/i915"),
        ("[siderolabs/i915-ucode, siderolabs/i915]", "warning", "the same extension"),
        ("[siderolabs/gvisor, siderolabs/gvisor]", "warning", "once is enough"),
    ],
)
def test_names_are_looked_up_in_a_catalogue(names: str, severity: str, words: str) -> None:
    text = f"customization: {{systemExtensions: {{officialExtensions: {names}}}}}"
    found = findings(text, ISO, known=True)
    assert found[0].severity == severity
    assert any(words in item.message for item in found)
    assert all(item.field == EXTENSIONS for item in found)


def test_an_unknown_name_is_no_error_where_nobody_looks() -> None:
    text = "customization: {systemExtensions: {officialExtensions: [siderolabs/nope]}}"
    severities = {item.severity for item in findings(text, "kernel-amd64", known=True)}
    assert "error" not in severities


@pytest.mark.parametrize(
    ("name", "words"),
    [("gvisor", "siderolabs/gvisor"), ("siderolabs/gasket", "in later versions")],
)
def test_names_without_a_catalogue(name: str, words: str) -> None:
    text = f"customization: {{systemExtensions: {{officialExtensions: [{name}]}}}}"
    (found,) = findings(text, ISO)
    assert words in found.message


def test_the_guest_agent_counts_under_its_old_name() -> None:
    text = "customization: {systemExtensions: {officialExtensions: [siderolabs/talos-vmtoolsd]}}"
    assert all("vSphere" not in item.message for item in findings(text, "vmware-amd64.ova"))


def test_an_overlay_is_looked_up_and_its_image_compared() -> None:
    (unknown,) = findings("overlay: {name: nope, image: a/b}", "metal-arm64.raw", known=True)
    assert (unknown.severity, unknown.field) == ("error", OVERLAY)
    (other,) = findings("overlay: {name: rockpi4, image: a/b}", "metal-arm64.raw", known=True)
    assert other.severity == "info"
    assert "siderolabs/sbc-rockchip" in other.message


@pytest.mark.parametrize(("size", "fits"), [(262_000, True), (262_200, False)])
def test_meta_has_its_size(size: int, fits: bool) -> None:
    text = f"customization: {{meta: [{{key: 12, value: {'x' * size}}}]}}"
    found = findings(text, "metal-amd64.raw")
    assert [item.severity for item in found] == ([] if fits else ["error"])


def test_meta_travels_compressed_from_v1_6_3_on() -> None:
    text = f"customization: {{meta: [{{key: 12, value: {'x' * 4000}}}]}}"
    assert [item.field for item in findings(text, ISO, tag="v1.6.2")] == [META]
    assert findings(text, ISO, tag="v1.6.3") == []


def test_values_stay_secret() -> None:
    text = (
        "customization:\n  extraKernelArgs: [k=hunter2, k=hunter2, -k, 'x=hunter2 y']\n"
        "  meta: [{key: 6, value: hunter2}, {key: 6, value: hunter2}]\n"
        "  embeddedMachineConfiguration: hunter2\n"
    )
    found = findings(text, ISO, "installer-amd64.tar", tag="v1.9.0")
    assert found
    assert all("hunter2" not in str(item.as_dict()) for item in found)


def test_errors_come_first() -> None:
    text = "customization: {extraKernelArgs: [a, a], embeddedMachineConfiguration: x}"
    severities = [item.severity for item in findings(text, ISO, "nocloud-amd64.iso", tag="v1.9.0")]
    order = ["error", "warning", "info"]
    assert severities == sorted(severities, key=order.index)
    assert set(severities) == set(order)
