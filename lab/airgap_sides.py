"""The two sides of the air gap of `make airgap-demo`, and the program as each of them runs it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import docker
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lab.console import LabError, run
from lab.place import NAME_PREFIX, Place

NO_NETWORK = ("unshare", "--net")
OUR_LABEL = "io.local-imager.owner-process"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the gap: a folder with its own settings and store, and the program there.

    `prefix` is what each command is started with.
    """

    name: str
    folder: Path
    prefix: tuple[str, ...] = ()

    def show(self, *arguments: str, code: int = 0) -> None:
        """Run a command for the reader to see; raises LabError for another status."""
        print(f"\n{self.name}$ local-imager {shlex.join(arguments)}", flush=True)
        self._run(arguments, code, None)
        if code:
            print(f"  -> exit status {code}", flush=True)

    def json(self, *arguments: str) -> Any:
        """Run a command quietly and return what `--json` says; raises LabError."""
        return json.loads(self._run(("-q", *arguments, "--json"), 0, subprocess.PIPE))

    def _run(self, arguments: Sequence[str], code: int, stdout: int | None) -> str:
        argv = [*self.prefix, sys.executable, "-m", "local_imager", *arguments]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LOCAL_IMAGER_")}
        env = {**kept, "LOCAL_IMAGER_CONFIG": str(self.folder / "settings.toml")}
        # In a group of its own Ctrl-C reaches it once, from here, and it has time to clean up.
        with subprocess.Popen(
            argv, cwd=self.folder, env=env, stdout=stdout, text=True, process_group=0
        ) as process:
            try:
                said, _ = process.communicate()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
                process.communicate()
                raise
        if process.returncode != code:
            told = f"ended with status {process.returncode}, expected was {code}"
            raise LabError(f"local-imager {shlex.join(arguments)} {told}")
        return said or ""


def stop_as_ctrl_c() -> None:
    """Have SIGTERM and SIGHUP end the demo as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def near_side(place: Place, folder: Path, registry: str) -> Side:
    """Return the side that has a network: it reads the lab's images from a real registry.

    It has a throwaway key to sign bundles with.
    """
    folder.mkdir(parents=True)
    make_key(folder, "courier")
    _write_settings(place, folder, f'source = "http://{registry}"\n')
    return Side("near", folder)


def far_side(place: Place, folder: Path, near: Side) -> Side:
    """Return the side that has none: an empty store, and a policy that its own people wrote."""
    folder.mkdir(parents=True)
    shutil.copyfile(near.folder / "courier.pub", folder / "courier.pub")
    rule = '\n[[trust]]\npattern = "bundles"\nkey = "courier.pub"\n'
    _write_settings(place, folder, "", rule)
    return Side("far", folder, NO_NETWORK)


def make_key(folder: Path, name: str) -> None:
    """Make an ECDSA key: NAME.key to sign with, NAME.pub for the other side."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = folder / f"{name}.key"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key()
    spki = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(spki)


def _write_settings(place: Place, folder: Path, source: str, more_trust: str = "") -> None:
    shutil.copyfile(place.public_key, folder / "images.pub")
    (folder / "settings.toml").write_text(
        f'store = "store"\nout = "out"\n\n[upstream]\nregistry = "{NAME_PREFIX}"\n{source}\n'
        f'[[trust]]\npattern = "{NAME_PREFIX}/**"\nkey = "images.pub"\n{more_trust}',
        encoding="utf-8",
    )


def interfaces(side: Side) -> list[str]:
    """Return the network interfaces that a program on this side finds, loopback left out.

    Raises LabError when a namespace cannot be made here.
    """
    lines = run([*side.prefix, "cat", "/proc/net/dev"]).splitlines()[2:]
    return sorted({line.split(":")[0].strip() for line in lines} - {"lo"})


def containers_started(since_s: float, until_s: float) -> tuple[int, list[str]]:
    """Return how many containers of ours the engine started, and networks that any was put in.

    The engine itself says so: it keeps what happened lately.
    """
    client = docker.from_env()
    try:
        ours, networks = set[str](), list[tuple[str, str]]()
        for event in client.events(since=int(since_s), until=int(until_s) + 1, decode=True):
            actor = event["Actor"]
            if (event["Type"], event["Action"]) == ("network", "connect"):
                networks.append((actor["Attributes"]["container"], actor["Attributes"]["name"]))
            elif event["Action"] == "start" and OUR_LABEL in actor["Attributes"]:
                ours.add(actor["ID"])
        return len(ours), sorted({name for container, name in networks if container in ours})
    finally:
        client.close()
