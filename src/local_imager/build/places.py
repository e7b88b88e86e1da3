"""How a run's directories reach the container: shared by bind mount, or streamed into volumes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from local_imager.build.container import ContainerUser, MountSource
from local_imager.build.docker import Engine, NoSuchObject
from local_imager.build.outputs import check_outputs
from local_imager.build.request import DISK_ROOT, INPUT_ROOT, KEY_ROOT, OUTPUT_ROOT, ImagerRequest
from local_imager.build.staging import give_to
from local_imager.build.transfer import folders_archive, take_file, tree_archive
from local_imager.errors import BuildError

Mounts = dict[str, tuple[MountSource, bool]]
_OUTPUT_VOLUME = "/out"
_DISK_VOLUME = "/disk"


class Places(Protocol):
    """One way to give a container its inputs and to get its outputs."""

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Make the inputs available and return the mounts."""

    def collect(self, request: ImagerRequest, container: str) -> None:
        """Check the outputs and bring the wanted ones into ``request.output_dir``."""

    def release(self) -> None:
        """Give back what is held for all requests."""


class BindPlaces:
    """The engine sees our file system: directories are mounted as they are."""

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Create the output directory for the container's user and return the mounts."""
        writable = [request.output_dir]
        mounts: Mounts = {OUTPUT_ROOT: (_bind(request.output_dir), False)}
        if not request.limits.scratch_bytes:
            scratch = request.output_dir.with_name(request.output_dir.name + ".tmp")
            writable.append(scratch)
            mounts["/out/tmp"] = (_bind(scratch), False)
        for folder in writable:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not request.privileges.root:
                give_to(folder, user)
        for target, source in (
            (INPUT_ROOT, request.input_dir),
            (DISK_ROOT, request.disk_dir),
            (KEY_ROOT, request.key_dir),
        ):
            if source is not None:
                mounts[target] = (_bind(source), True)
        return mounts

    def collect(self, request: ImagerRequest, container: str) -> None:
        """Check what lies in the output directory."""
        check_outputs(request.output_dir, request.outputs, request.limits.max_file_bytes)

    def release(self) -> None:
        """Nothing is held: the directories are the caller's."""


def _bind(path: Path) -> MountSource:
    return MountSource("bind", str(path.resolve()))


class VolumePlaces:
    """The engine shares no files with us: inputs are sent into volumes, outputs are fetched."""

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = labels
        self._volumes: list[str] = []
        self._outputs: dict[Path, str] = {}

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Send the inputs and return the mounts of the volumes that hold them now."""
        output = self._volume()
        self._outputs[request.output_dir] = output
        mounts: Mounts = {_OUTPUT_VOLUME: (MountSource("volume", output), False)}
        sent: dict[str, Path] = {}
        for target, source in ((INPUT_ROOT, request.input_dir), (KEY_ROOT, request.key_dir)):
            if source is not None:
                mounts[target] = (MountSource("volume", self._volume()), True)
                sent[target] = source
        if request.disk_dir is not None:
            kept = self._outputs.get(request.disk_dir)
            if kept is None:
                raise BuildError(f"the engine no longer holds the disk for {request.subject}")
            mounts[_DISK_VOLUME] = (MountSource("volume", kept), True)
        self._send(request, user, mounts, sent)
        return mounts

    def _send(
        self,
        request: ImagerRequest,
        user: ContainerUser,
        mounts: Mounts,
        sent: Mapping[str, Path],
    ) -> None:
        """Fill the volumes through a container that is never started.

        The build container itself cannot be used: its inputs are mounted read-only.
        """
        document = {
            "Image": request.image_id,
            "Entrypoint": ["/never-started"],
            "Labels": dict(self._labels),
            "NetworkDisabled": True,
            "HostConfig": {
                "NetworkMode": "none",
                "CapDrop": ["ALL"],
                "Mounts": [
                    {"Type": "volume", "Source": source.source, "Target": target}
                    for target, (source, _) in mounts.items()
                    if source.kind == "volume"
                ],
            },
        }
        feeder = self._engine.create(document, f"local-imager-feed-{secrets.token_hex(6)}")
        try:
            folders = folders_archive(("files", "tmp"), user)
            self._engine.put_archive(feeder, _OUTPUT_VOLUME, iter([folders]))
            for target, source in sent.items():
                self._engine.put_archive(feeder, target, tree_archive(source))
        finally:
            self._engine.remove(feeder)

    def collect(self, request: ImagerRequest, container: str) -> None:
        """Fetch the wanted files; the rest stays in the volume until it is released."""
        request.output_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in sorted(request.outputs - request.keep_in_engine):
            try:
                stream = self._engine.get_archive(container, f"{OUTPUT_ROOT}/{name}")
            except NoSuchObject as error:
                raise BuildError(
                    f"the imager ended well but did not write {name}",
                    code="output-missing",
                    hint="the log says what it wrote",
                ) from error
            take_file(stream, name, request.output_dir / name, request.limits.max_file_bytes)
        if not request.keep_in_engine:
            check_outputs(request.output_dir, request.outputs, request.limits.max_file_bytes)

    def _volume(self) -> str:
        name = f"local-imager-{secrets.token_hex(8)}"
        self._engine.create_volume(name, self._labels)
        self._volumes.append(name)
        return name

    def release(self) -> None:
        """Remove all volumes."""
        for name in self._volumes:
            with contextlib.suppress(NoSuchObject):
                self._engine.remove_volume(name)
        self._volumes.clear()
        self._outputs.clear()
