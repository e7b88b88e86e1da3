"""What a build container may do: every flag, and nothing beyond what was granted."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.build.command import equivalent_command
from local_imager.build.container import MountSource, container_options, container_user
from local_imager.build.privilege import LOOP_PRIVILEGES
from local_imager.build.request import EngineInfo, ImagerRequest, Limits

ENGINE = EngineInfo("docker", "28", "1.51", "linux", "amd64", "classic")
REQUEST = ImagerRequest(
    subject="metal-amd64.iso",
    image_id="sha256:" + "1" * 64,
    command=("/bin/imager", "-", "--output", "/out/files"),
    outputs=frozenset({"metal-amd64.iso"}),
    output_dir=Path("/work dir/out"),
    stdin=b"profile with secret",
    shown_stdin="profile with ***\n",
    input_dir=Path("/work dir/in"),
    env={"SOURCE_DATE_EPOCH": "1"},
    limits=Limits(memory_bytes=1000, pids=7, scratch_bytes=500, max_file_bytes=99),
)
MOUNTS = {"/in": (MountSource("bind", "/x"), True), "/out": (MountSource("volume", "v"), False)}


def options(request: ImagerRequest = REQUEST, engine: EngineInfo = ENGINE) -> dict[str, Any]:
    return container_options(request, engine, MOUNTS, {"owner": "me"})


def test_nothing_is_granted_by_default() -> None:
    document = options()
    host = document["HostConfig"]
    assert host["NetworkMode"] == "none" and document["NetworkDisabled"]
    assert host["ReadonlyRootfs"] is True
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], [])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["DeviceCgroupRules"] == []
    assert host["PidsLimit"] == 7
    assert host["Memory"] == host["MemorySwap"] == 1000
    assert host["Ulimits"] == [{"Name": "fsize", "Soft": 99, "Hard": 99}]
    assert document["Healthcheck"] == {"Test": ["NONE"]}
    assert document["Labels"] == {"io.local-imager.owner": "me"}


def test_it_runs_by_id_and_keeps_no_log_of_secrets() -> None:
    document = options()
    assert document["Image"].startswith("sha256:")
    assert document["HostConfig"]["LogConfig"]["Type"] == "none"
    assert document["HostConfig"]["AutoRemove"] is False
    assert "secret" not in str(document)


def test_mounts_are_objects_and_inputs_read_only() -> None:
    first, second = options()["HostConfig"]["Mounts"]
    assert (first["Target"], first["Type"], first["ReadOnly"]) == ("/in", "bind", True)
    assert first["BindOptions"] == {"Propagation": "rprivate"}
    assert (second["Target"], second["Type"], second["ReadOnly"]) == ("/out", "volume", False)


def test_temporary_files_are_in_memory_and_may_be_executed() -> None:
    tmp = options()["HostConfig"]["Tmpfs"]["/tmp"].split(",")
    assert {"exec", "nosuid", "nodev", "mode=1777", "size=500"} <= set(tmp)
    assert "TMPDIR" not in str(options()["Env"])


def test_without_memory_they_go_to_disk() -> None:
    document = options(replace(REQUEST, limits=Limits(scratch_bytes=0)))
    assert "TMPDIR=/out/tmp" in document["Env"]


def test_privileges_are_exactly_those_asked_for() -> None:
    document = options(replace(REQUEST, privileges=LOOP_PRIVILEGES))
    host = document["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == ["SYS_ADMIN", "MKNOD"]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined"]
    assert host["DeviceCgroupRules"] == ["b 7:* rmw", "b 259:* rmw", "c 10:237 rmw"]
    assert host["Privileged"] is False
    assert document["User"] == "0:0"


@pytest.mark.parametrize(
    ("uid", "rootless", "inside", "outside"),
    [
        (0, False, "65532:65532", 65532),
        (1000, False, "1000:1000", 1000),
        (1000, True, "0:0", 1000),
    ],
)
def test_the_user_is_never_root_outside(
    monkeypatch: pytest.MonkeyPatch, uid: int, rootless: bool, inside: str, outside: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "getegid", lambda: uid)
    user = container_user(replace(ENGINE, rootless=rootless))
    assert (user.inside, user.outside_uid) == (inside, outside)


def test_an_engine_without_memory_limits_is_not_asked_for_them() -> None:
    assert options(engine=replace(ENGINE, limits_memory=False))["HostConfig"]["Memory"] == 0


def test_relative_directories_are_taken_from_where_one_is() -> None:
    line = equivalent_command(replace(REQUEST, input_dir=Path("my in")), ENGINE)
    assert "source=\"$PWD\"/'my in',target=/in,readonly" in line


def test_the_line_to_repeat_a_run_by_hand() -> None:
    line = equivalent_command(replace(REQUEST, limits=Limits(scratch_bytes=0)), ENGINE)
    place = REQUEST.output_dir.with_name("out.tmp")
    assert f"source='{place}',target=/out/tmp" in line and "--env TMPDIR=/out/tmp" in line
    line = equivalent_command(replace(REQUEST, privileges=LOOP_PRIVILEGES), ENGINE)
    assert "secret" not in line
    command, profile = line.split(" <<'PROFILE'\n")
    words = shlex.split(command)
    assert words[:3] == ["docker", "run", "--rm"]
    for flags in ("--network none", "--read-only", "--cap-drop ALL", "--memory 1000"):
        assert flags in command
    assert "type=bind,source=/work dir/in,target=/in,readonly" in words
    assert "--cap-add=SYS_ADMIN" in words and "seccomp=unconfined" in words
    assert words[-4:] == [REQUEST.image_id, "-", "--output", "/out/files"]
    assert profile == "profile with ***\nPROFILE"
