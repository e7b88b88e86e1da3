"""Builds a set of assets and compares each with its counterpart, as a CI job would.

A failing asset does not keep the others from being compared; the summary has an entry for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from local_imager.deliver.compare.address import PREFIX
from local_imager.deliver.compare.pair import attach_comparison, compare_sides
from local_imager.deliver.compare.sides import Side, SideContext, of_asset, open_side
from local_imager.deliver.compare.verdict import Comparison, Verdict
from local_imager.errors import (
    ExitCode,
    HostError,
    InputError,
    Interrupted,
    LocalImagerError,
    NotFound,
    StoreError,
)
from local_imager.events import NULL_SINK, EventSink, Message
from local_imager.pipeline.values import BuildOrder, BuildResult
from local_imager.schematic.canonical import schematic_id

if TYPE_CHECKING:
    from local_imager.pipeline.factory import Factory
    from local_imager.store.records import StoredAsset

FORMAT: Final = "local-imager/comparison-set/v1"
STORE: Final = "store"
_FIELDS: Final = ("{asset}", "{version}", "{id}")
# From bad to worse, for the exit code of a set: what could not be compared is worse than what
# differs, since nothing is known of it.
_SEVERITY: Final = (
    ExitCode.OK,
    ExitCode.COMPARISON_DIFFERS,
    ExitCode.INPUT_INVALID,
    ExitCode.FAILED,
    ExitCode.HOST_UNABLE,
    ExitCode.VERIFICATION_REFUSED,
    ExitCode.INTERRUPTED,
)


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One asset of the set: its build, its counterpart, and the result or why there is none."""

    asset: str
    built: BuildResult | None = None
    against: Side | None = None
    comparison: Comparison | None = None
    error: LocalImagerError | None = None

    def exit_code(self, *, strict: bool) -> ExitCode:
        """The exit code that this asset alone would give."""
        if self.error is not None:
            return ExitCode(self.error.exit_code)
        return exit_code_of(self.comparison.verdict if self.comparison else None, strict=strict)

    @property
    def word(self) -> str:
        """The verdict's name, or ``failed``."""
        return self.comparison.verdict.word if self.comparison is not None else "failed"

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the entry."""
        return {
            "asset": self.asset,
            "verdict": self.word,
            "built": self.built.as_dict() if self.built else None,
            "against": self.against.as_dict() if self.against else None,
            "comparison": self.comparison.as_dict() if self.comparison else None,
            "error": self.error.as_dict() if self.error else None,
        }


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The summary of a set, in the order that was asked for."""

    schematic_id: str
    version: str
    against: str
    strict: bool
    entries: tuple[BatchEntry, ...]

    @property
    def exit_code(self) -> ExitCode:
        """The worst of the entries'; see ``_SEVERITY`` for the order."""
        codes = [entry.exit_code(strict=self.strict) for entry in self.entries]
        return max(codes, key=_SEVERITY.index, default=ExitCode.OK)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries have each verdict, ``failed`` among them."""
        found = Counter(entry.word for entry in self.entries)
        words = [verdict.word for verdict in Verdict]
        return {word: found[word] for word in (*words, "failed")}

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON document of ``compare --build --json``."""
        return {
            "format": FORMAT,
            "schematic_id": self.schematic_id,
            "version": self.version,
            "against": self.against,
            "strict": self.strict,
            "exit_code": int(self.exit_code),
            "counts": self.counts,
            "entries": [entry.as_dict() for entry in self.entries],
        }


def exit_code_of(verdict: Verdict | None, *, strict: bool) -> ExitCode:
    """Return the exit code of one verdict: the first three pass, with ``strict`` only the first."""
    if verdict is None:
        return ExitCode.FAILED
    passes = Verdict.IDENTICAL if strict else Verdict.NAMED_NOISE
    return ExitCode.OK if verdict <= passes else ExitCode.COMPARISON_DIFFERS


@dataclass(frozen=True, slots=True)
class Against:
    """Where the counterparts are: what was written, understood.

    ``factory:``; ``store`` (what the store had under the name before this build); a directory
    with the files, as they are or as ``build --out`` lays them out; any side with ``{asset}``,
    ``{version}`` and ``{id}`` in it.
    """

    text: str

    @classmethod
    def parse(cls, text: str, assets: Sequence[str]) -> Against:
        """Check what was written; raises :class:`InputError` for what names no counterparts."""
        fits = text in (PREFIX, PREFIX.rstrip(":"), STORE) or any(f in text for f in _FIELDS)
        if fits or (text and (Path(text).is_dir() or len(assets) == 1)):
            return cls(PREFIX if text == PREFIX.rstrip(":") else text)
        raise InputError(
            f"--against {text[:120]!r} names no counterparts for {len(assets)} assets",
            hint="give factory:, store, a directory, or a pattern such as DIR/{asset}",
        )

    def side_name(self, schematic: str, version: str, asset: str) -> str:
        """Return the side that an asset's counterpart is."""
        if self.text == PREFIX:
            return f"{PREFIX}{schematic}/{version}/{asset}"
        if Path(self.text).is_dir() and not any(field in self.text for field in _FIELDS):
            return str(self._in_directory(Path(self.text), schematic, version, asset))
        filled = self.text
        for field, value in zip(_FIELDS, (asset, version, schematic), strict=True):
            filled = filled.replace(field, value)
        return filled

    def _in_directory(self, folder: Path, schematic: str, version: str, asset: str) -> Path:
        tried = [
            folder / asset,
            folder / version / asset,
            folder / schematic[:12] / version / asset,
            folder / schematic / version / asset,
        ]
        found = next((path for path in tried if path.is_file()), None)
        if found is None:
            raise NotFound(
                f"{folder} has no {asset}",
                hint=f"it was looked for as {asset}, {version}/{asset} and "
                f"{schematic[:12]}/{version}/{asset}",
            )
        return found


def compare_batch(
    order: BuildOrder,
    against: str,
    factory: Factory,
    context: SideContext,
    *,
    upload: bool = False,
    strict: bool = False,
    limit: int | None = None,
    sink: EventSink = NULL_SINK,
) -> BatchResult:
    """Build every asset of the order and compare it with its counterpart.

    ``upload`` sends the schematic to the factory before its files are asked for; nothing is ever
    sent otherwise. What fails is an entry of the result; raises only :class:`InputError` for what
    was written wrongly, and :class:`Interrupted`.
    """
    assets = tuple(dict.fromkeys(order.assets))
    where = Against.parse(against, assets)
    known = str(schematic_id(order.schematic))
    if upload:
        _refuse_useless_upload(where, context)
        if order.schematic.customization.embedded_machine_configuration:
            text = f"the schematic holds a machine configuration; {context.client.host} learns it"
            sink.emit(Message(text, "warning"))
        context.client.upload(order.schematic)
    before = _stored_before(order, known, assets, factory) if where.text == STORE else {}
    batch = _Batch(order, where, known, factory, context, before, limit, sink)
    entries = tuple(batch.entry(asset, built) for asset, built in batch.build(assets))
    return BatchResult(known, order.version, against, strict, entries)


def _refuse_useless_upload(where: Against, context: SideContext) -> None:
    if context.offline:
        raise InputError("--upload and --offline do not go together", hint="leave one of them away")
    if not where.text.startswith(PREFIX):
        raise InputError(
            "--upload sends the schematic to a factory, and --against names none",
            hint="add --against factory:",
        )


def _stored_before(
    order: BuildOrder, known: str, assets: Iterable[str], factory: Factory
) -> dict[str, StoredAsset]:
    """Return what the store has under the names of the assets, before they are built."""
    found = {}
    for asset in assets:
        try:
            found[asset] = factory.store.show(f"{known}/{order.version}/{asset}")
        except (NotFound, InputError):
            continue
    return found


@dataclass(frozen=True, slots=True)
class _Batch:
    order: BuildOrder
    where: Against
    schematic_id: str
    factory: Factory
    context: SideContext
    before: dict[str, StoredAsset]
    limit: int | None
    sink: EventSink

    def build(self, assets: Sequence[str]) -> Iterable[tuple[str, BuildResult | LocalImagerError]]:
        """Build all at once; when that fails, one by one, so that each has its own outcome."""
        try:
            results = self.factory.build(replace(self.order, assets=tuple(assets)))
            return list(zip(assets, results, strict=True))
        except Interrupted:
            raise
        except LocalImagerError as error:
            # Without an engine no asset fares better than another.
            if len(assets) == 1 or isinstance(error, HostError):
                return [(asset, error) for asset in assets]
            text = f"not all can be built ({error.message}): each is built for itself"
            self.sink.emit(Message(text, "warning"))
        return [pair for asset in assets for pair in self.build([asset])]

    def entry(self, asset: str, built: BuildResult | LocalImagerError) -> BatchEntry:
        """Compare one asset; whatever goes wrong becomes part of the entry."""
        if isinstance(built, LocalImagerError):
            return BatchEntry(asset, error=built)
        theirs: Side | None = None
        try:
            stored = self._ours(asset, built)
            ours = of_asset(stored.name, stored)
            theirs = self._theirs(asset)
            comparison = compare_sides(
                ours, theirs, store=self.factory.store, limit=self.limit, sink=self.sink
            )
            attach_comparison(self.factory.store, stored, comparison)
        except Interrupted:
            raise
        except LocalImagerError as error:
            return BatchEntry(asset, built, theirs, error=error)
        except OSError as error:
            told = LocalImagerError(f"{asset} cannot be read: {error.strerror or error}")
            return BatchEntry(asset, built, theirs, error=told)
        return BatchEntry(asset, built, theirs, comparison)

    def _ours(self, asset: str, built: BuildResult) -> StoredAsset:
        stored = self.factory.store.find_build(built.build_key)
        if stored is None:
            raise StoreError(
                f"{asset} was built and is not in the store any more",
                hint="another process removed it; run the command again",
            )
        return stored

    def _theirs(self, asset: str) -> Side:
        if self.where.text == STORE:
            if asset not in self.before:
                raise NotFound(
                    f"the store had no {asset} of this schematic and version before this build",
                    hint="--against store compares with what an earlier build left there",
                )
            earlier = self.before[asset]
            if not self.factory.store.layout.intact(earlier.digest, earlier.size_bytes):
                raise StoreError(f"the earlier {asset} is not in the store any more")
            return of_asset(earlier.name, earlier)
        name = self.where.side_name(self.schematic_id, self.order.version, asset)
        return open_side(name, self.context)
