"""How a run's directories reach the container: shared by bind mount, or streamed into volumes."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from local_imager.build.container import ContainerUser, MountSource
from local_imager.build.docker import Engine, NoSuchObject
from local_imager.build.outputs import check_outputs
from local_imager.build.request import (
    DISK_ROOT,
    INPUT_ROOT,
    KEY_ROOT,
    OUTPUT_ROOT,
    SCRATCH_ROOT,
    ImagerRequest,
)
from local_imager.build.staging import give_to
from local_imager.build.transfer import folders_archive, take_files, tree_archive
from local_imager.errors import BuildError

Mounts = dict[str, tuple[MountSource, bool]]
_OUTPUT_VOLUME = "/out"
_DISK_VOLUME = "/disk"


class Places(Protocol):
    """One way to give a container its inputs and to get its outputs.

    ``streams`` says that outputs travel as a stream, in which zeros cost as much as content.
    """

    @property
    def streams(self) -> bool: ...

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Make the inputs available and return the mounts."""

    def collect(self, request: ImagerRequest, container: str) -> None:
        """Check the outputs and bring the wanted ones into ``request.output_dir``."""

    def finish(self, request: ImagerRequest) -> None:
        """Give back what only this run needed; its container is gone."""

    def release(self, output_dir: Path) -> None:
        """Give back what was kept of an output directory."""

    def close(self) -> None:
        """Give back everything."""


class BindPlaces:
    """The engine sees our file system: directories are mounted as they are."""

    streams = False

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Create the output directory for the container's user and return the mounts."""
        writable = [request.output_dir]
        mounts: Mounts = {OUTPUT_ROOT: (_bind(request.output_dir), False)}
        if not request.limits.scratch_bytes:
            scratch = _scratch_dir(request)
            writable.append(scratch)
            mounts[SCRATCH_ROOT] = (_bind(scratch), False)
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

    def finish(self, request: ImagerRequest) -> None:
        """Remove the temporary files of a run that had them on disk."""
        shutil.rmtree(_scratch_dir(request), ignore_errors=True)

    def release(self, output_dir: Path) -> None:
        """Nothing is held: the directories are the caller's."""

    def close(self) -> None:
        """Nothing is held."""


def _scratch_dir(request: ImagerRequest) -> Path:
    return request.output_dir.with_name(request.output_dir.name + ".tmp")


def _bind(path: Path) -> MountSource:
    return MountSource("bind", str(path.resolve()))


class VolumePlaces:
    """The engine shares no files with us: inputs are sent into volumes, outputs are fetched."""

    streams = True

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = labels
        self._lock = threading.Lock()
        self._inputs: dict[Path, list[str]] = {}
        self._outputs: dict[Path, str] = {}

    def prepare(self, request: ImagerRequest, user: ContainerUser) -> Mounts:
        """Send the inputs and return the mounts of the volumes that hold them now."""
        with self._lock:
            kept = self._outputs.get(request.disk_dir) if request.disk_dir else None
        if request.disk_dir is not None and kept is None:
            raise BuildError(f"the engine no longer holds the disk for {request.subject}")
        output = self._volume()
        with self._lock:
            self._outputs[request.output_dir] = output
            inputs = self._inputs.setdefault(request.output_dir, [])
        mounts: Mounts = {_OUTPUT_VOLUME: (MountSource("volume", output), False)}
        if kept is not None:
            mounts[_DISK_VOLUME] = (MountSource("volume", kept), True)
        sent: dict[str, Path] = {}
        for target, source in ((INPUT_ROOT, request.input_dir), (KEY_ROOT, request.key_dir)):
            if source is not None:
                inputs.append(self._volume())
                mounts[target] = (MountSource("volume", inputs[-1]), True)
                sent[target] = source
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
        writable = {_OUTPUT_VOLUME, *sent}
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
                    if target in writable
                ],
            },
        }
        feeder = self._engine.create(document, f"local-imager-feed-{secrets.token_hex(6)}")
        try:
            folders = folders_archive(("files", "tmp"), user)
            self._engine.put_archive(feeder, _OUTPUT_VOLUME, iter([folders]))
            for target, source in sent.items():
                self._engine.put_archive(feeder, target, tree_archive(source, user))
        finally:
            self._engine.remove(feeder)

    def collect(self, request: ImagerRequest, container: str) -> None:
        """Fetch the wanted files; the rest stays in the volume until it is removed."""
        request.output_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted, bound = request.outputs - request.keep_in_engine, request.limits.max_file_bytes
        if not request.keep_in_engine:  # all of it, so that an unexpected name is noticed
            stream = self._engine.get_archive(container, OUTPUT_ROOT)
            take_files(stream, wanted, request.output_dir, bound)
            return
        for name in sorted(wanted):
            try:
                stream = self._engine.get_archive(container, f"{OUTPUT_ROOT}/{name}")
            except NoSuchObject as error:
                raise BuildError(
                    f"the imager ended well but did not write {name}",
                    code="output-missing",
                    hint="the log says what it wrote",
                ) from error
            take_files(stream, frozenset({name}), request.output_dir, bound)

    def _volume(self) -> str:
        name = f"local-imager-{secrets.token_hex(8)}"
        self._engine.create_volume(name, self._labels)
        return name

    def finish(self, request: ImagerRequest) -> None:
        """Remove the volumes of the inputs, and that of the outputs unless it is kept."""
        with self._lock:
            volumes = self._inputs.pop(request.output_dir, [])
            if not request.keep and request.output_dir in self._outputs:
                volumes.append(self._outputs.pop(request.output_dir))
        for name in volumes:
            self._engine.remove_volume(name)

    def release(self, output_dir: Path) -> None:
        """Remove the volume that was kept for an output directory."""
        with self._lock:
            name = self._outputs.pop(output_dir, None)
        if name is not None:
            self._engine.remove_volume(name)

    def close(self) -> None:
        """Remove all volumes."""
        for output_dir in list(self._outputs):
            self.release(output_dir)
