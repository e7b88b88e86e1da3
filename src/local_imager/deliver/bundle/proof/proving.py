"""Planning builds from a bundle alone, as a far side would that imported it into an empty store.

A real plan, by the real planner, over a store that holds nothing but the documents and catalogues
of the bundle; then each image that the plan needs is looked for: named in the bundle under its
digest, accepted by the judge that an import asks, with every blob of it at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Final

from local_imager.deliver.bundle.far.judging import Judge, Judgement
from local_imager.deliver.bundle.form.model import Item
from local_imager.deliver.bundle.proof.farside import FarSide, Shortage
from local_imager.deliver.bundle.proof.proofs import AssetProof, Lack, LackKind, ProvenImage
from local_imager.errors import PlanError, SourceError, VerificationRefused
from local_imager.events import EventSink, printable
from local_imager.oci.model import Index, Reference
from local_imager.pipeline.locked import LockDrift, LockGuard
from local_imager.pipeline.lockfile import LockFile
from local_imager.pipeline.planning import Planner, wanted_builder
from local_imager.profile.assetname import AssetName
from local_imager.profile.builder import newest_fit
from local_imager.profile.customize import ENROLMENT_FILES, REQUIRED_KEYS
from local_imager.profile.handed import build_profile
from local_imager.profile.model import Arch, BuildPlan, Catalogue, PlanOptions, Requirement
from local_imager.profile.plan import plan
from local_imager.profile.version import TalosVersion
from local_imager.schematic.canonical import schematic_id
from local_imager.schematic.model import Schematic
from local_imager.settings import Settings
from local_imager.sources.catalogues import catalogue_requirements
from local_imager.sources.upstream import IMAGER, OLDEST_BUILDER, Sources
from local_imager.store.store import Store

# Keys never travel, and a far side that makes them has all: the plan is made as if they were there.
_KEY_FILES: Final = frozenset({*REQUIRED_KEYS, *ENROLMENT_FILES.values()})
_RELOCK: Final = "make the bundle again for this build: its lock is made of what it is made for"


@dataclass(frozen=True, slots=True)
class Build:
    """Builds that are asked about: some assets of one schematic (``file`` names it) and version."""

    file: str
    schematic: Schematic
    version: TalosVersion
    assets: tuple[AssetName, ...]


@dataclass
class Prover:
    """Proves builds from one bundle; ``store`` holds what was kept of it and nothing else.

    ``host`` is the architecture of the machine that will run the imager. ``lock`` is the lock that
    builds on the far side are held to.
    """

    settings: Settings
    store: Store
    sources: Sources
    judge: Judge
    far_side: FarSide
    host: Arch
    lock: LockFile | None
    sink: EventSink
    _judged: dict[str, Judgement] = field(default_factory=dict)

    def prove(self, build: Build) -> Iterator[AssetProof]:
        """Yield the proof of each asset.

        Raises :class:`PlanError` where schematic, version and asset do not go together at all,
        :class:`SettingsError` for a policy that cannot be asked.
        """
        trials: dict[bool, _Trial] = {}
        for name in build.assets:
            guard, drift = self._guard(build, name)
            # Whatever the asset is, a guard of this schematic and version pins the same images.
            trial = trials.setdefault(guard is None, _Trial(self, build, guard))
            proof = trial.prove(name)
            yield replace(proof, lacks=tuple(dict.fromkeys((*drift, *proof.lacks))))

    def _guard(self, build: Build, name: AssetName) -> tuple[LockGuard | None, tuple[Lack, ...]]:
        if self.lock is None:
            return None, ()
        try:
            guard = LockGuard.check(
                self.lock, self.settings, build.schematic, build.version, [name]
            )
        except LockDrift as error:
            return None, _drift(self.lock, error)
        return guard, ()

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """The images of the bundle by name."""
        return {item.name: item for item in self.far_side.bundle.items if item.kind == "image"}

    def judged(self, item: Item) -> Judgement:
        """Return what an import would say of an item."""
        if item.name not in self._judged:
            self._judged[item.name] = self.judge.judge(item)
        return self._judged[item.name]

    def find(self, reference: Reference) -> Item | None:
        """Return the image that a store would have under a name, as ``held_descriptor`` does."""
        found = self.items.get(str(reference))
        if found is None and reference.digest is not None and reference.tag:
            found = self.items.get(f"{reference.name}:{reference.tag}")
        if found is None or reference.digest not in (None, found.descriptor.digest):
            return None
        return found

    def size_bytes(self, images: Iterable[str]) -> int:
        """Return how many bytes images have together."""
        blobs = self.far_side.bundle.by_digest
        needed = {digest for name in images for digest in self.items[name].blobs}
        return sum(blobs[digest].size_bytes for digest in needed)

    def has_whole(self, requirement: Requirement) -> bool:
        """Return whether every byte of an image that a build reads will be there."""
        item = self.find(requirement.reference(self.settings.registry))
        if item is None or any(self.far_side.shortages(item.blobs)):
            return False
        return not _other_arches(self.judged(item), requirement.arches(self.host))


class _Trial:
    """One schematic at one version: its catalogue and builder, then asset by asset."""

    def __init__(self, prover: Prover, build: Build, guard: LockGuard | None) -> None:
        self._prover, self._build, self._guard = prover, build, guard
        self._planner = Planner(prover.settings, prover.sources, prover.store, prover.sink, guard)
        self._found: dict[Requirement, ProvenImage | tuple[Lack, ...]] = {}

    def prove(self, name: AssetName) -> AssetProof:
        """Plan one asset and look for its images."""
        entry, lacks = self._planned(name)
        images: list[ProvenImage] = []
        for requirement in self._requirements(entry):
            found = self._look_for(requirement)
            if isinstance(found, ProvenImage):
                images.append(found)
            else:
                lacks += found
        if not lacks and entry is not None and not entry.resolved:
            lacks.append(self._unread("the build", "overlay"))
        build = self._build
        return AssetProof(
            build.file,
            str(schematic_id(build.schematic)),
            str(build.version),
            str(name),
            self._prover.host,
            str(self._builder or ""),
            tuple(images),
            tuple(lacks),
            self._prover.size_bytes(image.name for image in images),
            tuple(_notes(name, entry)),
        )

    def _planned(self, name: AssetName) -> tuple[BuildPlan | None, list[Lack]]:
        options = PlanOptions(
            self._builder, self._prover.settings.factory_url, _KEY_FILES, self._prover.host
        )
        build = self._build
        try:
            entry = plan(build.schematic, build.version, name, self._catalogue, options)
            if entry.resolved:
                build_profile(entry, options)
        except PlanError as error:
            if error.code != "builder-too-old":
                raise
            return None, [
                Lack("builder", f"siderolabs/imager:{self._builder}", error.message, error.hint)
            ]
        return entry, []

    def _requirements(self, entry: BuildPlan | None) -> Sequence[Requirement]:
        """Return what is needed, the catalogues too where the planner reads them for any asset."""
        wanted = list(entry.requirements) if entry is not None else []
        if _asks_catalogue(self._build.schematic):
            wanted += catalogue_requirements(self._build.version)
        return tuple(dict.fromkeys(wanted))

    @cached_property
    def _catalogue(self) -> Catalogue | None:
        """What the bundle's catalogues say; None when they cannot be read, which shows below.

        Where only the overlay's image cannot be read, the plan lacks nothing but its profile.
        """
        version = self._build.version
        for read in (
            partial(self._planner.catalogue, self._build.schematic, version),
            partial(self._planner.sources.catalogue, version),
        ):
            with suppress(SourceError, VerificationRefused, LockDrift):
                return read()
        return None

    @cached_property
    def _builder(self) -> TalosVersion | None:
        """The imager that the far side would run: as ``Sources.builder_version`` over its store."""
        base = self._build.version
        wanted = wanted_builder(self._prover.settings, base)
        if self._guard is not None:
            return self._guard.builder
        if isinstance(wanted, TalosVersion):
            return wanted
        known = self._prover.sources.versions()
        whole = [
            version
            for version in known
            if self._prover.has_whole(Requirement("builder", IMAGER, str(version)))
        ]
        return newest_fit(whole, base) or newest_fit(known, base)

    # -- one image ------------------------------------------------------------------------------

    def _look_for(self, requirement: Requirement) -> ProvenImage | tuple[Lack, ...]:
        if requirement not in self._found:
            self._found[requirement] = self._looked_for(requirement)
        return self._found[requirement]

    def _looked_for(self, requirement: Requirement) -> ProvenImage | tuple[Lack, ...]:
        if not requirement.tag and requirement.digest is None:
            return (self._unknown(requirement),)
        try:
            pinned = self._guard.pin(requirement) if self._guard else requirement
        except LockDrift as error:
            assert self._prover.lock is not None  # noqa: S101 - the guard was made of it
            return _drift(self._prover.lock, error)
        reference = pinned.reference(self._prover.settings.registry)
        item = self._prover.find(reference)
        if item is None:
            return (self._absent(requirement, reference),)
        judged = self._prover.judged(item)
        lacks = tuple(self._lacks_of(requirement, item, judged))
        return lacks or self._held_to_lock(requirement) or self._proven(requirement, item, judged)

    def _lacks_of(self, requirement: Requirement, item: Item, judged: Judgement) -> Iterator[Lack]:
        role, name = requirement.role, item.name
        shortages = self._prover.far_side.shortages(item.blobs)
        for shortage in shortages:
            yield _short(role, name, shortage)
        if judged.verdict == "refused":
            yield Lack("refused", name, judged.message, judged.hint, role, code=judged.code)
        if judged.verdict != "accepted":
            return
        missing = _other_arches(judged, requirement.arches(self._prover.host))
        if missing:
            (arch,) = missing
            of_host = role in ("builder", "base", "overlay") and arch == self._prover.host
            option = "--host-arch" if of_host else "--arch"
            yield Lack(
                "architecture",
                name,
                f"it is in the bundle for {', '.join(item.arches)}, and {arch} is needed",
                f"make the bundle with {option} {arch}",
                role,
            )

    def _held_to_lock(self, requirement: Requirement) -> tuple[Lack, ...]:
        """Compare with the lock as a locked build does: signer and sizes."""
        if self._guard is None:
            return ()
        try:
            image = self._planner.sources.survey(requirement).image
            self._guard.check_images({requirement: image}, self._prover.store)
        except VerificationRefused as error:
            name = str(requirement.reference(self._prover.settings.registry))
            text = "; ".join(error.tried) or error.message
            return (Lack("lock", name, text, _RELOCK, requirement.role, code=error.code),)
        return ()

    def _proven(self, requirement: Requirement, item: Item, judged: Judgement) -> ProvenImage:
        return ProvenImage(
            requirement.role,
            item.name,
            item.descriptor.digest,
            requirement.arches(self._prover.host),
            judged.signer,
            judged.policy,
            self._prover.size_bytes([item.name]),
        )

    def _unknown(self, requirement: Requirement) -> Lack:
        if requirement.role == "builder":
            least = max(self._build.version, OLDEST_BUILDER)
            return Lack(
                "builder",
                requirement.name,
                f"the bundle has no imager of {least} or later to run",
                "make the bundle with the builder: it comes with --version, unless build.builder "
                "of the settings says another",
                "builder",
            )
        return self._unread(requirement.name, requirement.role)

    def _unread(self, name: str, role: str) -> Lack:
        """Say why nobody knows which image is meant: the catalogue does not come, or is not here.

        A delta leaves out what the far side has, so plans need the near side's copy of that.
        """
        version = self._build.version
        found = [self._look_for(one) for one in catalogue_requirements(version)]
        lacks = [lack for one in found if not isinstance(one, ProvenImage) for lack in one]
        if lacks:
            text = f"which image it is stands in a catalogue of Talos {version} that is missing"
            return Lack("catalogue", name, text, lacks[0].remedy, role)
        text = "what it needs stands in images that the far side has and this machine has not"
        remedy = "check the bundle with the store that it was made from (--store DIR)"
        return Lack("catalogue", name, text, remedy, role)

    def _absent(self, requirement: Requirement, reference: Reference) -> Lack:
        kind: LackKind = "builder" if requirement.role == "builder" else "image"
        other = self._prover.items.get(f"{reference.name}:{reference.tag}")
        text = "it is not in the bundle"
        if other is not None:
            text = f"the bundle has another image of this tag, {other.descriptor.digest}"
        return Lack(kind, str(reference), text, _option(requirement, reference), requirement.role)


def _asks_catalogue(schematic: Schematic) -> bool:
    """Say when the planner reads the catalogues, whatever the asset is."""
    overlay = schematic.overlay
    return bool(schematic.customization.official_extensions or overlay.name or overlay.image)


def _other_arches(judged: Judgement, wanted: Sequence[Arch]) -> tuple[Arch, ...]:
    """Return the architectures that an accepted image does not bring."""
    if judged.outline is None or not isinstance(judged.outline.manifests[0], Index):
        return ()
    return tuple(arch for arch in wanted if arch not in judged.outline.arches)


def _short(role: str, name: str, shortage: Shortage) -> Lack:
    blobs = "1 blob" if shortage.blobs == 1 else f"{shortage.blobs} blobs"
    verb = "is" if shortage.blobs == 1 else "are"
    text = f"{blobs} of it {verb} {shortage.reason}"
    return Lack("blobs", name, text, shortage.remedy, role, shortage.size_bytes)


def _option(requirement: Requirement, reference: Reference) -> str:
    """Say which option of ``bundle create`` brings an image."""
    tag, short = requirement.tag, requirement.name
    option = {
        "extension": f"--schematic FILE (or --extensions {short})",
        "overlay": "--schematic FILE (or --overlays NAME)",
        "builder": f"--image {reference}",
    }.get(requirement.role, f"--version {tag}")
    if requirement.arch is not None:
        option += f" --arch {requirement.arch}"
    return f"make the bundle with {option}"


def _drift(lock: LockFile, error: LockDrift) -> tuple[Lack, ...]:
    return tuple(Lack("lock", str(lock.path), printable(line), _RELOCK) for line in error.drift)


def _notes(name: AssetName, entry: BuildPlan | None) -> Iterator[str]:
    if entry is not None:
        yield from entry.warnings
    if name.secureboot:
        yield (
            "it is signed for secure boot on the far side: the keys are not in a bundle, take "
            "them there yourself (--secureboot-keys DIR)"
        )
