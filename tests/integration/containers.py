"""The containers that a process of ours has in the engine."""

from __future__ import annotations

import time
from collections.abc import Callable

import docker

_OWNER = "io.local-imager.owner-process"


def containers_of(engine: docker.DockerClient, pid: int, *, running: bool = False) -> list[str]:
    """Return the names of the containers that a process made (of those that run now)."""
    found = engine.api.containers(all=not running, filters={"label": _OWNER})
    return [
        str(entry["Names"][0])
        for entry in found
        if entry["Labels"][_OWNER].partition(".")[0] == str(pid)
    ]


def removed_since(engine: docker.DockerClient, pid: int, since_s: float) -> list[str]:
    """Return the names of the containers of a process that were removed since a time (Unix)."""
    wanted = {"type": "container", "event": "destroy", "label": _OWNER}
    until_s = int(time.time()) + 1
    found = engine.api.events(since=int(since_s), until=until_s, filters=wanted, decode=True)
    return [
        str(event["Actor"]["Attributes"]["name"])
        for event in found
        if event["timeNano"] > since_s * 1e9
        and event["Actor"]["Attributes"][_OWNER].partition(".")[0] == str(pid)
    ]


def volumes_of(engine: docker.DockerClient, pid: int) -> list[str]:
    """Return the names of the volumes that a process made."""
    found = engine.api.volumes(filters={"label": _OWNER})["Volumes"] or []
    return [
        str(entry["Name"])
        for entry in found
        if entry["Labels"][_OWNER].partition(".")[0] == str(pid)
    ]


def wait_until(answer: Callable[[], bool], what: str, timeout_s: float = 60) -> float:
    """Wait for something to become true; returns how long it took in seconds."""
    began_s = time.monotonic()
    while not answer():
        assert time.monotonic() - began_s < timeout_s, f"{what} did not happen in {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - began_s
