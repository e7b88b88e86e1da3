"""`--builder same` for a version whose imager needs loop devices: refused, or explained."""

from __future__ import annotations

import pytest

from tests.labfolder import MIDDLE
from tests.program import SCHEMATICS, Program

pytestmark = [pytest.mark.lab, pytest.mark.engine]

ORDER = ("build", SCHEMATICS / "vanilla.yaml", "--version", MIDDLE, "--builder", "same")


def test_a_disk_is_refused_by_a_preflight_that_names_what_is_missing(fresh: Program) -> None:
    refused = fresh(*ORDER, "metal-amd64.raw.zst", "--out", fresh.out)
    refused.expect(5, MIDDLE, "loop devices", "SYS_ADMIN", "--allow-privileged", "v1.13")


def test_the_environment_cannot_allow_privilege(fresh: Program) -> None:
    env = {"LOCAL_IMAGER_BUILD_ALLOW_PRIVILEGED": "true"}
    program = Program(fresh.config, fresh.store, fresh.out, env=env)
    program(*ORDER, "metal-amd64.raw.zst", "--no-export").expect(2, "loosens safety")


def test_with_privilege_it_is_built_or_the_reason_is_told(fresh: Program) -> None:
    """Whether it can be built depends on the kernel: loop devices and the vfat file system."""
    allowed = ("--allow-privileged", "metal-amd64.raw.zst", "--out", fresh.out)
    ended = fresh(*ORDER, *allowed)
    if ended.code == 0:
        assert list(fresh.out.rglob("metal-amd64.raw.zst"))
        return
    assert ended.code in (1, 5)
    ended.expect(ended.code, MIDDLE, "leave out --builder")
    fresh.fsck()


def test_an_old_imager_makes_what_needs_no_privilege(fresh: Program) -> None:
    (built,) = fresh.build(
        SCHEMATICS / "kernel-args.yaml",
        "metal-amd64-uki.efi",
        "--builder",
        "same",
        version=MIDDLE,
    )
    shown = fresh("store", "show", built["manifest_digest"], "--json").expect(0).json
    assert shown["version"] == MIDDLE
