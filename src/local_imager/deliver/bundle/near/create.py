"""Making a bundle: gathered, composed, cut, written whole or not at all, and signed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_imager.deliver.bundle.deltas.delta import leave_out, plan_delta
from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.manifest import parse_bundle, render_bundle
from local_imager.deliver.bundle.form.model import Blob, Bundle
from local_imager.deliver.bundle.near.contents import Contents, compose
from local_imager.deliver.bundle.near.gather import Gathered, gather
from local_imager.deliver.bundle.near.order import Order
from local_imager.deliver.bundle.near.outfile import (
    Comparison,
    Differs,
    check_room,
    growing,
    other_parts,
    part_name,
    refuse_foreign,
    remove_leftovers,
)
from local_imager.deliver.bundle.near.packed import Packed
from local_imager.deliver.bundle.near.signature import plan_signature
from local_imager.deliver.bundle.near.split import range_digests, split_bundle, whole_part
from local_imager.deliver.bundle.near.writer import STEP, Source, stream_part
from local_imager.errors import InputError
from local_imager.events import EventSink, Message, StepFinished, step
from local_imager.oci.blobs import open_regular
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.pipeline.factory import Factory

if TYPE_CHECKING:
    from local_imager.deliver.bundle.form.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Form:
    """How a bundle is written: ``output`` is the file (of a set: the name that parts derive from).

    ``since`` is what the far side has and need not get again; ``limit_bytes`` cuts the bundle into
    parts of at most so many bytes before compression. Without ``deltas`` what the far side lacks
    travels whole, for a far side whose libraries pack otherwise.
    """

    output: Path
    packed: bool = False
    since: Inventory | None = None
    deltas: bool = True
    limit_bytes: int | None = None
    key: SigningKey | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class WrittenPart:
    """A file of the bundle; ``unchanged`` when it was there already, byte for byte."""

    path: Path
    size_bytes: int
    unchanged: bool

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of ``bundle create --json``."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "unchanged": self.unchanged,
        }


@dataclass(frozen=True, slots=True)
class Created:
    """A bundle that was written: its manifest, its files, and who signed it.

    ``signer`` is empty for one that is not signed; ``secrets`` are schematics that may hold some.
    ``left_out_bytes`` is what the far side has already.
    """

    bundle: Bundle
    set_digest: Digest
    parts: tuple[WrittenPart, ...]
    signature: Path | None
    signer: str
    secrets: tuple[str, ...]
    left_out_bytes: int = 0

    @property
    def rebuilt(self) -> tuple[Blob, ...]:
        """The blobs that travel as a difference."""
        return tuple(blob for blob in self.bundle.blobs if blob.rebuild is not None)

    @property
    def differences_bytes(self) -> int:
        """The bytes of all differences together."""
        payloads = {blob.rebuild.payload for blob in self.rebuilt if blob.rebuild is not None}
        return sum(self.bundle.by_digest[payload].size_bytes for payload in payloads)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files together, the signature left out."""
        return sum(part.size_bytes for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of ``bundle create --json``."""
        kinds = [item.kind for item in self.bundle.items]
        return {
            "set": str(self.set_digest),
            "size_bytes": self.size_bytes,
            "parts": [part.as_dict() for part in self.parts],
            "images": kinds.count("image"),
            "assets": kinds.count("asset"),
            "documents": kinds.count("document"),
            "blobs": len(self.bundle.blobs),
            "since": str(self.bundle.since) if self.bundle.since else None,
            "left_out_bytes": self.left_out_bytes,
            "rebuilt_blobs": len(self.rebuilt),
            "differences_bytes": self.differences_bytes,
            "signature": str(self.signature) if self.signature else None,
            "signer": self.signer or None,
            "secrets": list(self.secrets),
            "facts": {name: list(values) for name, values in sorted(self.bundle.facts.items())},
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """What a bundle would be, exact but for what the properties below name.

    ``part_bytes`` are the sizes of its files before compression; the sizes of ``unbuilt`` assets
    are not known. Of a delta it is the most: blobs that resemble one of the far side may travel as
    a difference, which shows only when they are there.
    """

    bundle: Bundle
    set_digest: Digest
    part_bytes: tuple[int, ...]
    unbuilt: tuple[str, ...]
    secrets: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all files together before compression."""
        return sum(self.part_bytes)


def create_bundle(factory: Factory, order: Order, form: Form, sink: EventSink) -> Created:
    """Gather what the order asks for and write it; an equal bundle that is there is success.

    Raises :class:`InputError` when another file is there and is not to be replaced,
    :class:`HostError` when the disk has no room, :class:`IntegrityError` when a blob of the store
    is damaged, and what gathering raises. Then nothing of it is there, and nothing is when it is
    interrupted.
    """
    refuse_foreign(form.output, force=form.force)
    gathered = gather(factory, order, sink)
    contents = compose(gathered.layout, gathered.images, gathered.assets, gathered.documents)
    bundle, left_out_bytes = _manifest(gathered, contents, form, sink)
    source = _source(bundle, contents, gathered.layout)
    _warn(gathered, contents, sink)
    first = part_name(form.output, 1, len(source.bundle.parts))
    plan = plan_signature(first, source.manifest, form.key, force=form.force)
    remove_leftovers(form.output)
    targets = _targets(source, form)
    with _undone([*targets, plan.path]):
        parts = _write(source, targets, form, bool(gathered.secrets), sink)
        signature = plan.carry_out(source.manifest, sink)
    for path in other_parts(form.output, {part.path for part in parts}):
        sink.emit(Message(f"{path} is of another set: do not carry it with this one", "warning"))
    return Created(
        source.bundle,
        source.set_digest,
        parts,
        signature,
        plan.signer,
        gathered.secrets,
        left_out_bytes,
    )


def preview_bundle(
    factory: Factory, order: Order, form: Form, sink: EventSink, scratch: Layout
) -> Preview:
    """Work out what :func:`create_bundle` would write, fetching no layer and writing no file.

    ``scratch`` is an empty layout for manifests. Raises what gathering raises.
    """
    refuse_foreign(form.output, force=form.force)
    gathered = gather(factory, order, sink, scratch=scratch)
    contents = compose(
        gathered.layout, gathered.images, gathered.assets, gathered.documents, whole=False
    )
    bundle = contents.bundle(gathered.facts)
    if form.since is not None:
        blobs = leave_out(bundle.blobs, form.since)
        bundle = _since(bundle, blobs, form.since)
    if form.limit_bytes is not None:
        # The digest of a segment is as long as any other; its bytes are not here yet.
        bundle = split_bundle(bundle, form.limit_bytes, lambda *_: Digest("0" * 64))
    source = Source(bundle, render_bundle(bundle), contents.index, contents.made, _nothing)
    numbers = range(1, len(bundle.parts) + 1)
    return Preview(
        bundle,
        source.set_digest,
        tuple(source.size_bytes(number) for number in numbers),
        gathered.unbuilt,
        gathered.secrets,
    )


def _nothing(digest: Digest) -> int:
    raise FileNotFoundError(str(digest))


def _manifest(
    gathered: Gathered, contents: Contents, form: Form, sink: EventSink
) -> tuple[Bundle, int]:
    """Return the manifest in its final form, and how many bytes the far side has already."""
    bundle, left_out_bytes = contents.bundle(gathered.facts), 0
    if form.since is not None:
        # Kin are looked for among the images of these items.
        items = bundle.items if form.deltas else ()
        plan = plan_delta(bundle.blobs, items, gathered.layout, form.since, sink)
        left_out_bytes = plan.left_out_bytes
        for digest, reason in plan.whole:
            purpose = bundle.by_digest[digest].purpose
            sink.emit(Message(f"{purpose} travels whole: {reason}", "debug"))
        bundle = _since(bundle, plan.blobs, form.since)
    if form.limit_bytes is not None:
        bundle = split_bundle(bundle, form.limit_bytes, range_digests(gathered.layout))
    return bundle, left_out_bytes


def _since(bundle: Bundle, blobs: tuple[Blob, ...], inventory: Inventory) -> Bundle:
    return replace(bundle, blobs=blobs, parts=(whole_part(blobs),), since=inventory.digest)


def _source(bundle: Bundle, contents: Contents, layout: Layout) -> Source:
    """Return all that is written; what we could not read again never is."""
    manifest = render_bundle(bundle)
    parse_bundle(manifest)
    return Source(
        bundle,
        manifest,
        contents.index,
        contents.made,
        lambda digest: open_regular(layout.blob_path(digest)),
    )


def _warn(gathered: Gathered, contents: Contents, sink: EventSink) -> None:
    for sentence in contents.left_out:
        sink.emit(Message(sentence, "warning"))
    if gathered.secrets:
        names = ", ".join(gathered.secrets)
        sink.emit(
            Message(
                f"the bundle may hold secrets, as {names} may (kernel arguments, META or a machine "
                "configuration): only you can read the file; guard the medium that carries it",
                "warning",
            )
        )


@contextlib.contextmanager
def _undone(targets: Sequence[Path]) -> Iterator[None]:
    """Remove those of the files again that were made here when not all could be made."""
    before = [_identity(target) for target in targets]
    try:
        yield
    except BaseException:
        for target, known in zip(targets, before, strict=True):
            if _identity(target) not in (None, known):
                target.unlink(missing_ok=True)
        raise


def _identity(target: Path) -> tuple[int, int] | None:
    """Tell one file of a name from another; None when there is none."""
    try:
        status = target.lstat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns)


def _targets(source: Source, form: Form) -> tuple[Path, ...]:
    """Return the files that will be written; raises :class:`InputError` for foreign ones."""
    count = len(source.bundle.parts)
    targets = tuple(part_name(form.output, number, count) for number in range(1, count + 1))
    for target in targets:
        refuse_foreign(target, force=form.force)
    return targets


def _write(
    source: Source, targets: Sequence[Path], form: Form, private: bool, sink: EventSink
) -> tuple[WrittenPart, ...]:
    numbered = list(enumerate(targets, 1))
    if not form.packed:
        sizes = [(target, source.size_bytes(number)) for number, target in numbered]
        lacking = [size for target, size in sizes if form.force or not _may_be(target, size)]
        check_room(form.output.parent, sum(lacking))
    return tuple(_write_part(source, n, target, form, private, sink) for n, target in numbered)


def _may_be(target: Path, size_bytes: int) -> bool:
    """Whether the file may be there already, so that it takes no room."""
    return target.is_file() and target.stat().st_size == size_bytes


def _write_part(
    source: Source,
    number: int,
    target: Path,
    form: Form,
    private: bool,
    sink: EventSink,
) -> WrittenPart:
    if target.is_file():
        size_bytes = _compared(source, number, target, form, sink)
        if size_bytes is not None:
            sink.emit(StepFinished(STEP, target.name, 0.0, "cached"))
            return WrittenPart(target, size_bytes, True)
        if not form.force:
            raise InputError(
                f"{target} is there already and is another bundle than this one, or damaged",
                hint="choose another name, or say --force to replace it",
                code="exists",
            )
    with step(sink, STEP, target.name), growing(target, private=private) as file:
        _stream(source, number, form, file.write, sink, target.name)
        file.commit()
    return WrittenPart(target, file.size_bytes, False)


def _compared(source: Source, number: int, target: Path, form: Form, sink: EventSink) -> int | None:
    """Return the size of a file that has the bytes of this part already, else None."""
    if not form.packed and not _may_be(target, source.size_bytes(number)):
        return None
    try:
        with Comparison(target) as there:
            _stream(source, number, form, there.write, sink, target.name)
            there.end()
            return there.size_bytes
    except Differs:
        return None


def _stream(
    source: Source,
    number: int,
    form: Form,
    write: Callable[[memoryview], None],
    sink: EventSink,
    subject: str,
) -> None:
    if not form.packed:
        stream_part(source, number, write, sink, subject)
        return
    packed = Packed(write, source.size_bytes(number))
    stream_part(source, number, packed.write, sink, subject)
    packed.end()
