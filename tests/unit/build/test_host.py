"""What a host must have: privileges of old imagers, memory, disk, and what doctor says of it."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local_imager.build import doctor, resources
from local_imager.build.doctor import check_host
from local_imager.build.privilege import (
    LOOP_PRIVILEGES,
    missing_for_loop_devices,
    needs_loop_devices,
    privileges_for,
)
from local_imager.build.request import GIB, MIB, NO_PRIVILEGES, EngineInfo
from local_imager.build.resources import (
    output_bytes,
    require_disk_space,
    scratch_bytes,
    scratch_on_disk_bytes,
)
from local_imager.build.runner import DockerRunner
from local_imager.errors import HostError
from local_imager.profile.version import TalosVersion
from tests.fakerunner import ENGINE, FakeRunner
from tests.unit.build.samples import disk_plan, plan

OLD, NEW = TalosVersion(1, 9, 0), TalosVersion(1, 13, 0)
Usage = namedtuple("Usage", "total used free")


def make_root(root: Path, *, loop: bool = True, filesystems: str = "", modules: str = "") -> Path:
    (root / "dev").mkdir()
    (root / "proc").mkdir()
    folder = root / "lib/modules" / os.uname().release
    folder.mkdir(parents=True)
    if loop:
        (root / "dev/loop-control").touch()
    (root / "proc/filesystems").write_text(f"nodev\tsysfs\n\text4\n{filesystems}")
    (folder / "modules.dep").write_text(modules)
    return root


@pytest.mark.parametrize(
    ("filesystems", "modules"), [("\tvfat\n", ""), ("", "kernel/fs/fat/vfat.ko.xz: x\n")]
)
def test_a_host_with_loop_and_vfat(tmp_path: Path, filesystems: str, modules: str) -> None:
    root = make_root(tmp_path, filesystems=filesystems, modules=modules)
    assert missing_for_loop_devices(root) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    missing = missing_for_loop_devices(make_root(tmp_path, loop=False))
    assert any("loop-control" in text for text in missing)
    assert any("vfat" in text for text in missing)


def test_only_old_builders_of_disks_need_rights() -> None:
    disk = disk_plan("metal-amd64.raw")
    assert needs_loop_devices(replace(disk, builder=OLD))
    assert needs_loop_devices(replace(disk, builder=TalosVersion(1, 12, 9)))
    assert not needs_loop_devices(replace(disk, version=OLD, builder=NEW))
    assert not needs_loop_devices(replace(plan(), builder=OLD))
    assert needs_loop_devices(replace(disk, version=OLD, builder=None))


def test_rights_are_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(disk_plan("metal-amd64.raw"), builder=OLD)
    assert privileges_for(disk_plan("metal-amd64.raw"), False) == NO_PRIVILEGES
    module = "local_imager.build.privilege.missing_for_loop_devices"
    monkeypatch.setattr(module, lambda: ["the kernel has no vfat file system"])
    with pytest.raises(HostError) as caught:
        privileges_for(old, False)
    assert caught.value.code == "privilege-needed"
    assert "no vfat" in caught.value.message
    with pytest.raises(HostError) as caught:
        privileges_for(old, True)
    assert caught.value.code == "privilege-impossible"
    monkeypatch.setattr(module, list)
    assert privileges_for(old, True) == LOOP_PRIVILEGES


REMOTE = EngineInfo("docker", "28", "1.51", "linux", "amd64", "classic", memory_bytes=64 * GIB)


def test_temporary_files_of_a_small_build_are_in_memory() -> None:
    assert scratch_bytes(plan(), 30 * MIB, 4 * GIB, REMOTE) == 3 * GIB


def test_a_new_disk_gets_less_than_one_of_its_partitions() -> None:
    # Two gigabytes would be preallocated for one partition and be missing for everything else.
    size = scratch_bytes(disk_plan("metal-amd64.raw"), 30 * MIB, 4 * GIB, REMOTE)
    assert 0 < size < 2000 * MIB


def test_an_old_disk_gets_room_for_its_partitions() -> None:
    old = disk_plan("metal-amd64.raw", version=OLD)
    assert scratch_bytes(old, 30 * MIB, 4 * GIB, REMOTE) == 3 * GIB


@pytest.mark.parametrize("version", [OLD, NEW])
def test_an_ova_of_the_imager_has_room_for_a_copy_of_its_disk(version: TalosVersion) -> None:
    ova = disk_plan("metal-amd64.ova", "ova", version=version)
    copied = output_bytes(ova, 300 * MIB)
    needed = scratch_on_disk_bytes(ova, 300 * MIB, exact=True)
    assert needed == scratch_on_disk_bytes(ova, 300 * MIB) + copied
    # It is made in memory only where all of that fits; by the program itself nothing is copied.
    assert scratch_bytes(ova, 300 * MIB, 4 * GIB, REMOTE, exact=True) == 0
    assert scratch_bytes(ova, 30 * MIB, 4 * GIB, REMOTE) > 0
    assert scratch_bytes(ova, 300 * MIB, 32 * GIB, REMOTE, exact=True) >= needed


@pytest.mark.parametrize("size", [600 * MIB, 3 * GIB])
def test_large_inputs_go_to_disk(size: int) -> None:
    for entry in (plan(), disk_plan("metal-amd64.raw"), disk_plan("m-amd64.raw", version=OLD)):
        assert scratch_bytes(entry, size, 4 * GIB, REMOTE) == 0


def test_a_host_without_free_memory_uses_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    local = replace(REMOTE, endpoint="unix:///var/run/docker.sock")
    monkeypatch.setattr(resources, "available_memory", lambda _engine: 600 * MIB)
    assert scratch_bytes(plan(), 30 * MIB, 4 * GIB, local) == 0


def test_only_a_disk_counts_with_its_nominal_size() -> None:
    large = output_bytes(disk_plan("metal-amd64.raw"), 30 * MIB)
    assert large > output_bytes(plan(), 30 * MIB) + 2 * GIB


def test_too_little_disk_is_said_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_disk_space(tmp_path / "not yet" / "there", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 3 * GIB))
    with pytest.raises(HostError) as caught:
        require_disk_space(tmp_path, 4 * GIB)
    assert caught.value.code == "disk-space"
    assert "4.0 GiB" in caught.value.message and "3.0 GiB" in caught.value.message


def findings(tmp_path: Path) -> dict[str, doctor.Check]:
    checks = check_host(FakeRunner(), store=tmp_path, out=tmp_path, memory_bytes=GIB)
    return {check.name: check for check in checks}


def test_doctor_finds_a_good_host_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 100 * GIB))
    found = findings(tmp_path)
    assert not [check for check in found.values() if check.status == "fail"]
    assert found["engine"].status == found["store"].status == "ok"
    assert all(check.fix for check in found.values() if check.status != "ok")


@pytest.mark.parametrize(("free", "status"), [(GIB, "fail"), (5 * GIB, "warn")])
def test_doctor_judges_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, free))
    assert findings(tmp_path)["store"].status == status


def test_doctor_names_what_is_wrong_with_the_engine(tmp_path: Path) -> None:
    runner = DockerRunner("unix:///nowhere/docker.sock")
    checks = check_host(runner, store=tmp_path, out=tmp_path, memory_bytes=GIB)
    engine = next(check for check in checks if check.name == "engine")
    assert engine.status == "fail" and "DOCKER_HOST" in engine.fix


def test_doctor_judges_limits_memory_and_clock() -> None:
    assert doctor._confinement(replace(ENGINE, limits_memory=False)).status == "warn"
    assert doctor._memory(replace(ENGINE, memory_bytes=GIB), 4 * GIB).status == "warn"
    assert doctor._clock(datetime(1970, 1, 2, tzinfo=UTC)).status == "fail"
    assert "SELinux" in doctor._files(replace(ENGINE, selinux=True)).detail
    assert "streamed" in doctor._files(replace(ENGINE, endpoint="tcp://h:1")).detail


def test_host_errors_exit_with_five() -> None:
    assert int(HostError("x").exit_code) == 5
