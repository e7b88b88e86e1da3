"""Whether a bundle is enough: read once and whole, then builds are planned from it alone.

Every byte is verified as ``bundle verify`` does. What plans are read from (documents, catalogues,
overlays) is kept in a store of its own for as long as that takes; no network and no other store
takes part, but for blobs of these that a delta leaves out: they are read, by digest, from the
near side's store.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.far.judging import Judge
from local_imager.deliver.bundle.far.staged import Spool, StagedFiles
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Bundle, Item
from local_imager.deliver.bundle.form.signing import (
    check_signature,
    read_signature,
    unvouched,
    without_signatures,
)
from local_imager.deliver.bundle.form.words import ROLE_LOCK, ROLE_SCHEMATIC
from local_imager.deliver.bundle.proof.farside import FarSide
from local_imager.deliver.bundle.proof.keeping import Keeper
from local_imager.deliver.bundle.proof.proofs import AssetProof, Completeness
from local_imager.deliver.bundle.proof.proving import Build, Prover
from local_imager.deliver.bundle.reading.faults import Fault
from local_imager.deliver.bundle.reading.head import read_head
from local_imager.deliver.bundle.reading.reader import (
    STANDARD_INPUT,
    PartReading,
    open_part,
    read_part,
)
from local_imager.deliver.bundle.reading.verifying import (
    STANDARD_INPUT_NAME,
    MissingPart,
    VerifiedFile,
)
from local_imager.errors import InputError, LocalImagerError, NotFound, SourceError, StoreError
from local_imager.events import EventSink, printable, step
from local_imager.oci.host import host_arch
from local_imager.oci.indexlines import parse_index_document
from local_imager.oci.model import MAX_MANIFEST_BYTES, Digest, Manifest
from local_imager.pipeline.lockfile import LockFile
from local_imager.pipeline.lockread import parse_lock
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import ARCHES, Arch
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from local_imager.sources.catalogues import catalogue_requirements
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.upstream import Sources
from local_imager.store.store import Store

# One of each kind that needs other images: together they need all that any asset needs.
_USUAL: Final = ("metal-{}.iso", "metal-{}.raw.zst", "installer-{}.tar")
_VANILLA: Final = ("(no schematic)", Schematic())


@dataclass(frozen=True, slots=True)
class Question:
    """Which builds a bundle is to be enough for; what is left out is as the bundle was made for.

    ``schematics`` are pairs of file name and value; without any, those that it carries count.
    Without ``assets`` the ISO, the disk image and the installer of each of ``arches`` do.
    ``hosts`` are machines that will run the imager, ``have`` is what the far side has already.
    """

    versions: tuple[TalosVersion, ...] = ()
    schematics: tuple[tuple[str, Schematic], ...] = ()
    assets: tuple[AssetName, ...] = ()
    arches: tuple[Arch, ...] = ()
    hosts: tuple[Arch, ...] = ()
    have: Inventory | None = None

    def versions_of(self, bundle: Bundle) -> tuple[TalosVersion, ...]:
        """Return the versions to check; raises :class:`InputError` when nothing says any."""
        told = bundle.facts.get("versions", ())
        found = self.versions or tuple(TalosVersion.parse(text) for text in told)
        if not found:
            raise InputError(
                "the bundle was not made for a version of Talos, so there is no build to check",
                hint="give --version V for a build, or local-imager bundle verify for its bytes",
            )
        return found

    def hosts_of(self, bundle: Bundle) -> tuple[Arch, ...]:
        """Return the architectures of the machines that will build."""
        return self.hosts or _arches(bundle, "host-arches") or (host_arch(),)

    def assets_of(self, bundle: Bundle) -> tuple[AssetName, ...]:
        """Return the assets to check."""
        arches = self.arches or _arches(bundle, "arches") or self.hosts_of(bundle)
        usual = (name.format(arch) for arch in arches for name in _USUAL)
        return self.assets or tuple(map(AssetName.parse, usual))


def _arches(bundle: Bundle, fact: str) -> tuple[Arch, ...]:
    told = bundle.facts.get(fact, ())
    return tuple(arch for arch in ARCHES if arch in told)


def check_files(
    paths: Sequence[str],
    question: Question,
    settings: Settings,
    policy: TrustPolicy,
    sink: EventSink,
    *,
    signature: Path | None = None,
) -> Completeness:
    """Read the files of one bundle and say whether they are enough for the builds in question.

    Raises :class:`VerificationRefused` when the policy demands another signature of the bundle,
    :class:`InputError` for what is no bundle, :class:`PlanError` for builds that are none.
    """
    with tempfile.TemporaryDirectory(prefix="local-imager-check-") as folder:
        store = Store.open(Path(folder) / "store")
        checker = _Checker(question, settings, policy, sink, store)
        return checker.run(paths, signature)


class _Checker:
    """One check; ``store`` is its own, empty at first."""

    def __init__(
        self,
        question: Question,
        settings: Settings,
        policy: TrustPolicy,
        sink: EventSink,
        store: Store,
    ) -> None:
        self._question, self._settings = question, settings
        self._policy, self._sink, self._store = policy, sink, store
        self._signed = False

    def run(self, paths: Sequence[str], signature: Path | None) -> Completeness:
        """Read everything, then prove build by build."""
        paths = without_signatures(paths)
        untrusted_signature = read_signature(
            [Path(path) for path in paths if path != STANDARD_INPUT], signature
        )
        self._signed = untrusted_signature is not None
        keeper = Keeper(
            self._store.layout,
            self._wants,
            lambda manifest: check_signature(
                manifest, untrusted_signature, self._policy, self._sink
            ),
        )
        files = [self._read(path, keeper) for path in _in_order(paths)]
        damaged = [file for file, _ in files if not file.intact]
        bytes_read = sum(file.bytes_read for file, _ in files)
        if keeper.bundle is None:
            return self._answer(keeper, damaged, (), None, bytes_read)
        far_side = FarSide(keeper.bundle, self._question.have, keeper.given)
        readings = [reading for _, reading in files]
        for reading in readings:
            far_side.saw(reading)
        damaged += self._put_together(keeper, far_side, readings)
        faults = self._take_index(keeper.index_bytes, keeper.bundle)
        if keeper.index_bytes is None or faults:
            if faults:
                damaged.append(
                    VerifiedFile("index.json", identity=keeper.set_digest, faults=faults)
                )
            return self._answer(keeper, damaged, (), None, bytes_read)
        self._borrow(keeper, far_side)
        lock = self._lock(keeper.bundle)
        with step(self._sink, "check", "builds from the bundle alone"):
            assets = tuple(self._prove(keeper.bundle, keeper.index_bytes, far_side, lock))
        return self._answer(keeper, damaged, assets, lock, bytes_read)

    def _wants(self, bundle: Bundle) -> Iterator[Item]:
        """Yield the images that plans are read from: catalogues, and overlays where one is asked.

        Which overlay image it will be stands in a catalogue that is still to come.
        """
        catalogues = {
            str(requirement.reference(self._settings.registry))
            for version in self._question.versions_of(bundle)
            for requirement in catalogue_requirements(version)
        }
        given = [schematic.overlay for _, schematic in self._question.schematics]
        asked = not given or any(overlay.name for overlay in given)
        named = tuple(f"/{overlay.image}" for overlay in given if overlay.image)
        for item in bundle.items:
            name = item.name.partition("@")[0]
            overlay = "overlay" in item.roles or name.rpartition(":")[0].endswith(named)
            if item.kind == "image" and (name in catalogues or (asked and overlay)):
                yield item

    def _read(self, path: str, keeper: Keeper) -> tuple[VerifiedFile, PartReading]:
        name = STANDARD_INPUT_NAME if path == STANDARD_INPUT else printable(path, limit=300)
        keeper.name = name
        with open_part(path) as stream:
            reading = read_part(stream, name, keeper, self._sink)
        file = VerifiedFile(
            name,
            reading.label,
            reading.manifest_digest,
            reading.faults,
            reading.more_faults,
            reading.bytes_read,
        )
        return file, reading

    def _put_together(
        self, keeper: Keeper, far_side: FarSide, readings: Sequence[PartReading]
    ) -> list[VerifiedFile]:
        seen = frozenset[str]().union(*(reading.segments for reading in readings))

        def here(digest: Digest) -> bool:
            return all(piece.member in seen for _, piece in far_side.pieces(digest))

        faults = tuple(keeper.join(here))
        if not faults:
            return []
        return [VerifiedFile("all parts together", identity=keeper.set_digest, faults=faults)]

    def _take_index(self, untrusted_index: bytes | None, bundle: Bundle) -> tuple[Fault, ...]:
        """Let the names of the bundle count in the store; says what is wrong with them."""
        if untrusted_index is None:  # damaged, which is told already
            return ()
        try:
            entries = parse_index_document(untrusted_index, "index.json")["manifests"]
        except SourceError as error:
            affects = tuple(item.name for item in bundle.items)
            return (Fault("manifest", "index.json", printable(error.message), affects),)
        self._store.layout.update_index(lambda document: document.update(manifests=entries))
        return ()

    def _borrow(self, keeper: Keeper, far_side: FarSide) -> None:
        """Take what the far side has and plans are read from out of the near side's own store."""
        layout = self._store.layout
        missing = [d for d in keeper.kept if not layout.has(d) and far_side.can_have(d)]
        if not missing:
            return
        with contextlib.suppress(NotFound, StoreError):
            own = Store.open(self._settings.store, create=False).layout
            for digest in missing:
                if own.intact(digest, far_side.bundle.by_digest[digest].size_bytes):
                    layout.put_file(own.blob_path(digest), "", move=False)

    def _document(self, item: Item) -> bytes | None:
        """Return the bytes of a document's file; None when it is damaged or missing."""
        layout = self._store.layout
        try:
            manifest = layout.read_manifest(item.descriptor)
            if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
                return None
            return layout.read_blob(manifest.layers[0].digest, max_bytes=MAX_MANIFEST_BYTES)
        except SourceError:
            return None

    def _lock(self, bundle: Bundle) -> LockFile | None:
        """Return the lock in the bundle; raises :class:`InputError` for one that is malformed."""
        for item in bundle.items:
            if item.kind == "document" and ROLE_LOCK in item.roles:
                data = self._document(item)
                if data is not None:
                    name = f"{item.name} in the bundle"
                    return LockFile(Path(name), parse_lock(data, name), Digest.of(data))
        return None

    def _schematics(self, bundle: Bundle) -> Sequence[tuple[str, Schematic]]:
        if self._question.schematics:
            return self._question.schematics
        found = []
        for item in bundle.items:
            if item.kind == "document" and ROLE_SCHEMATIC in item.roles:
                data = self._document(item)
                if data is not None:
                    found.append((item.name, parse_schematic(data, source=item.name)))
        return found or [_VANILLA]

    def _prove(
        self, bundle: Bundle, index: bytes, far_side: FarSide, lock: LockFile | None
    ) -> Iterator[AssetProof]:
        with contextlib.closing(Spool(None)) as spool:
            files = StagedFiles("the bundle", bundle, index, spool, self._store.layout)
            why = unvouched(self._policy)
            prover = Prover(
                self._settings,
                self._store,
                Sources(
                    self._store,
                    self._settings.registry,
                    None,
                    self._policy,
                    self._sink,
                    self._settings.jobs,
                ),
                Judge(bundle, files, self._policy, None, why, None, self._sink),
                far_side,
                host_arch(),
                lock,
                self._sink,
            )
            names = self._question.assets_of(bundle)
            for host in self._question.hosts_of(bundle):
                held = replace(prover, host=host)
                for file, schematic in self._schematics(bundle):
                    for version in self._question.versions_of(bundle):
                        yield from held.prove(Build(file, schematic, version, names))

    def _answer(
        self,
        keeper: Keeper,
        damaged: Sequence[VerifiedFile],
        assets: tuple[AssetProof, ...],
        lock: LockFile | None,
        bytes_read: int,
    ) -> Completeness:
        bundle, have = keeper.bundle, self._question.have
        notes = []
        if assets and lock is None:
            notes.append("there is no lock in it: the far side builds without --locked")
        if bundle is not None and have is not None and bundle.since not in (None, have.digest):
            notes.append(
                "the bundle was made for another inventory than the one given: what is asked "
                "here is whether it is enough for this one"
            )
        if assets:
            notes.append("images were judged by this machine's policy; the far side asks its own")
        return Completeness(
            set_digest=keeper.set_digest,
            parts=len(bundle.parts) if bundle else 0,
            missing_parts=tuple(_missing(bundle, keeper.given)) if bundle else (),
            damaged=tuple(damaged),
            signed_by=keeper.signed_by,
            unvouched="" if keeper.signed_by else unvouched(self._policy),
            signed=self._signed,
            since=bundle.since if bundle else None,
            far_side=have.digest if have else None,
            lock=lock.path.name if lock else "",
            assets=assets,
            bytes_read=bytes_read,
            notes=tuple(notes),
        )


def _missing(bundle: Bundle, given: set[int]) -> Iterator[MissingPart]:
    for number in range(1, len(bundle.parts) + 1):
        if number not in given:
            yield MissingPart(number, bundle.names_in(number), damaged=False)


def _in_order(paths: Sequence[str]) -> list[str]:
    """Return the parts in the order of their numbers, so that cut blobs pass by in order.

    What can be read only once (a pipe) stays behind the files, in the order given.
    """
    if len(paths) < 2:
        return list(paths)

    def number(path: str) -> tuple[int, int]:
        if not os.path.isfile(path):
            return (2, 0)
        try:
            return (0, read_head(path).label.number)
        except LocalImagerError:  # reading it whole says what is wrong
            return (1, 0)

    return sorted(paths, key=number)
