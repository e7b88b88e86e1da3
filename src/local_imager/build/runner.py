"""Runs requests in containers of a local or remote engine; whatever happens, none is left over."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_imager.build.container import (
    LABEL_PREFIX,
    MountSource,
    container_options,
    container_user,
)
from local_imager.build.docker import Engine, NoSuchObject, require_usable
from local_imager.build.failure import require_success
from local_imager.build.following import Following, Later
from local_imager.build.ownership import owner_labels, remove_stale
from local_imager.build.places import BindPlaces, Places, VolumePlaces
from local_imager.build.request import (
    DISK_ROOT,
    OUTPUT_ROOT,
    BegunRun,
    EngineInfo,
    ImagerRequest,
    RunResult,
)
from local_imager.build.transfer import unpack_zstd
from local_imager.errors import HostError
from local_imager.events import EventSink, Message, Progress, step, timed
from local_imager.oci.archive import stream_archive
from local_imager.oci.export import select_image

if TYPE_CHECKING:
    from local_imager.oci.layout import Layout
    from local_imager.sources.verify import VerifiedImage


class DockerRunner:
    """The :class:`Runner` of Docker and Podman.

    ``host`` is an endpoint such as ``unix:///run/user/1000/podman/podman.sock``; empty means
    DOCKER_HOST, the docker context, or the usual sockets. Methods may be called from several
    threads at once.
    """

    def __init__(self, host: str = "") -> None:
        self._engine = Engine(host)
        self._labels = owner_labels()
        self._places: Places | None = None
        self._lock = threading.Lock()
        self._swept = False

    def info(self) -> EngineInfo:
        """Return what the engine is; raises :class:`HostError` when it cannot be used."""
        with self._lock:
            info = self._engine.info()
        require_usable(info)
        return info

    def load(self, image: VerifiedImage, layout: Layout, arch: str | None, sink: EventSink) -> str:
        """Make a verified image available in the engine, by content, and return its ID.

        The ID is the configuration's digest (classic store, Podman) or the manifest's (containerd
        store); any other answer is refused. An image that is there already is not sent again.
        """
        arch = arch or self.info().arch
        entry, manifest = select_image(layout, image.digest, arch)
        ours = [str(manifest.config.digest), str(manifest.digest)]
        with self._lock:
            known = self._loaded_id(ours)
            if known:
                return known
            tag = f"{image.reference.tag or 'untagged'}-{image.digest.short}"
            name = f"localhost/local-imager/{image.reference.repository.rpartition('/')[2]}:{tag}"
            with step(sink, "load", f"{image.reference}"):
                blobs = {item.digest: item for item in (entry, manifest.config, *manifest.layers)}
                total = sum(item.size_bytes for item in blobs.values())
                chunks = stream_archive(layout, image.digest, arch, name)
                answers = self._engine.load_image(
                    _counted(chunks, str(image.reference), total, sink)
                )
            known = self._loaded_id(ours)
        if not known:
            raise HostError(
                f"the engine took {image.reference}, but has no image with one of its digests",
                hint=f"it answered: {'; '.join(answers)[:300]}",
                code="engine-image",
            )
        return known

    def _loaded_id(self, ours: list[str]) -> str | None:
        found = (self._engine.image_id(digest) for digest in ours)
        return next((answer for answer in found if answer in ours), None)

    def run(self, request: ImagerRequest, sink: EventSink, cancel: threading.Event) -> RunResult:
        """Run to the end and leave the expected files in ``request.output_dir``.

        See :meth:`Runner.run` for what is raised. Stopping takes effect within a tenth of a
        second plus the engine's own time to kill.
        """
        with self.begin(request, sink, cancel) as begun:
            return begun.finish()

    @contextlib.contextmanager
    def begin(
        self, request: ImagerRequest, sink: EventSink, cancel: threading.Event
    ) -> Iterator[BegunRun]:
        """Start the program, which waits for its profile; see :meth:`Runner.begin`.

        Where files are sent to the engine everything waits for ``finish``: they have to be whole.
        """
        with contextlib.ExitStack() as held:
            with timed(sink, "engine", request.subject):
                engine = self.info()
                self._sweep(sink)
            places, container = self._placed(request, engine, sink, held)
            if places.streams:
                yield Later(lambda: self._run_streamed(request, places, sink, cancel))
                return
            if container is None:
                container = held.enter_context(self._created(request, places, engine, sink))
            with self._following(container, request, places, sink, cancel) as begun:
                yield begun

    def _run_streamed(
        self, request: ImagerRequest, places: Places, sink: EventSink, cancel: threading.Event
    ) -> RunResult:
        disks = frozenset(name for name in request.outputs if name.endswith(".raw"))
        disks -= request.keep_in_engine
        if not disks:
            return self._run(request, places, sink, cancel)
        kept = replace(request, keep=True, keep_in_engine=request.keep_in_engine | disks)
        try:
            result = self._run(kept, places, sink, cancel)
            if result.exit_code == 0:
                self._fetch_packed(request, disks, places, sink, cancel)
        finally:
            if not request.keep:
                places.release(request.output_dir)
        return result

    def _run(
        self, request: ImagerRequest, places: Places, sink: EventSink, cancel: threading.Event
    ) -> RunResult:
        with (
            self._created(request, places, self.info(), sink) as container,
            self._following(container, request, places, sink, cancel) as begun,
        ):
            return begun.finish()

    @contextlib.contextmanager
    def _created(
        self, request: ImagerRequest, places: Places, engine: EngineInfo, sink: EventSink
    ) -> Iterator[str]:
        """Have the container of a request, not started; it and its places are gone afterwards."""
        try:
            mounts = places.prepare(request, container_user(engine))
            if request.privileges.host_devices:
                mounts["/dev"] = (MountSource("bind", "/dev"), False)
            document = container_options(request, engine, mounts, self._labels)
            with timed(sink, "create", request.subject):
                container = self._engine.create(document, f"local-imager-{secrets.token_hex(6)}")
            try:
                yield container
            finally:
                with timed(sink, "remove", request.subject):
                    self._engine.remove(container)
        finally:
            places.finish(request)

    @contextlib.contextmanager
    def _following(
        self,
        container: str,
        request: ImagerRequest,
        places: Places,
        sink: EventSink,
        cancel: threading.Event,
    ) -> Iterator[BegunRun]:
        with Following(self._engine, container, request, sink, cancel) as following:
            yield Later(lambda: self._ended(following, places))

    def _ended(self, following: Following, places: Places) -> RunResult:
        """Let the program run to its end and take its outputs."""
        request, container = following.request, following.container
        result = following.finish()
        with timed(following.sink, "collect", request.subject):
            if result.exit_code == 0:
                places.collect(request, container)
        return result

    def _fetch_packed(
        self,
        request: ImagerRequest,
        disks: frozenset[str],
        places: Places,
        sink: EventSink,
        cancel: threading.Event,
    ) -> None:
        """Fetch raw disks compressed, by the image's own zstd in the engine.

        A disk of 4.4 GB holds some tens of megabytes; over a network that is the difference
        between seconds and minutes.
        """
        for name in sorted(disks):
            packed = f"{name}.zst"
            source, target = f"{DISK_ROOT}/{name}", f"{OUTPUT_ROOT}/{packed}"
            pack = replace(
                request,
                command=("zstd", "-1", "-T0", "--quiet", "-o", target, source),
                stdin=b"",
                outputs=frozenset({packed}),
                output_dir=request.output_dir / "packed",
                input_dir=None,
                key_dir=None,
                disk_dir=request.output_dir,
                keep=False,
                keep_in_engine=frozenset(),
            )
            require_success(pack, self._run(pack, places, sink, cancel), self.info())
            unpack_zstd(
                pack.output_dir / packed,
                request.output_dir / name,
                request.limits.max_file_bytes,
            )
            shutil.rmtree(pack.output_dir)

    def release(self, output_dir: Path) -> None:
        """Give back what was kept of a request's outputs; the files on this host stay."""
        if self._places is not None:
            self._places.release(output_dir)

    def close(self) -> None:
        """Remove the volumes that were kept for later requests and close the connection."""
        if self._places is not None:
            self._places.close()
            self._places = None
        self._engine.close()

    def _sweep(self, sink: EventSink) -> None:
        """Once per runner: remove what a killed process of this host left in the engine."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
            count = remove_stale(self._engine)
        if count:
            sink.emit(Message(f"removed {count} left-overs of a process that was killed", "info"))

    def _placed(
        self,
        request: ImagerRequest,
        engine: EngineInfo,
        sink: EventSink,
        held: contextlib.ExitStack,
    ) -> tuple[Places, str | None]:
        """Return how files reach this engine, and the container that it was found out with.

        That is the first one, which ``held`` removes; later there is none. User remapping and
        SELinux are served by volumes: with bind mounts they would need files opened to everyone,
        or a container without its SELinux confinement.
        """
        container = None
        with self._lock:
            if self._places is None and not (engine.remapped_users or engine.selinux):
                container = self._shared(request, engine, sink, held)
                self._places = BindPlaces() if container else None
            if self._places is None:
                labels = {LABEL_PREFIX + name: value for name, value in self._labels.items()}
                self._places = VolumePlaces(self._engine, labels)
            return self._places, container

    def _shared(
        self,
        request: ImagerRequest,
        engine: EngineInfo,
        sink: EventSink,
        held: contextlib.ExitStack,
    ) -> str | None:
        """Create the container over bind mounts; None when the engine does not see our files.

        Asked of the container before its start: is a file there that was written here?
        """
        nonce, name = secrets.token_hex(16), f".probe-{secrets.token_hex(6)}"
        probe = request.output_dir / name
        with contextlib.ExitStack() as tried:
            try:
                container = tried.enter_context(self._created(request, BindPlaces(), engine, sink))
                with timed(sink, "engine", request.subject):
                    probe.write_text(nonce)
                    stream = self._engine.get_archive(container, f"{OUTPUT_ROOT}/{name}")
                    if nonce.encode() not in b"".join(stream):
                        return None
            except NoSuchObject:
                return None
            except HostError as error:
                if error.code != "engine-refused":
                    raise
                return None  # the engine cannot even find the directory
            finally:
                probe.unlink(missing_ok=True)
            held.push(tried.pop_all())
        return container


def _counted(chunks: Iterator[bytes], subject: str, total: int, sink: EventSink) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        sink.emit(Progress("load", subject, min(done, total), total))
