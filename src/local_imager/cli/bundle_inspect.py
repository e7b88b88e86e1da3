"""``local-imager bundle inspect``: what a bundle says it holds, read from its head alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from local_imager.cli.sizes import counted, human_size
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.deliver.bundle.head import Head
    from local_imager.deliver.bundle.view import Amount, ItemView, PartView, View

# Of a hundred extensions the first lines say enough; --json has them all.
_SHOWN: Final = 200
_SCHEMATIC_ID: Final = re.compile(r"^[0-9a-f]{64}(?=/)")


@click.command("inspect")
@click.argument("file", metavar="FILE")
@click.option("--manifest", is_flag=True, help="Write bundle.json as it is: what is signed.")
@click.option("--json", "as_json", is_flag=True, help="Print what it holds as JSON.")
def inspect(file: str, manifest: bool, as_json: bool) -> None:
    """Show what FILE (a bundle, or any part of a set) says it holds.

    Only the head of the file is read, and nothing is verified: `bundle verify` does that.
    """
    if manifest and as_json:
        raise click.UsageError("--manifest writes the manifest itself, which is JSON: give one")
    from local_imager.deliver.bundle.head import read_head

    head = read_head(file)
    if manifest:
        sys.stdout.buffer.write(head.manifest)
        sys.stdout.buffer.flush()
        return
    from local_imager.deliver.bundle.view import view_of

    view = view_of(head.bundle)
    if as_json:
        _print_json(file, head, view)
        return
    for line in _lines(head, view):
        click.echo(line)


def _print_json(file: str, head: Head, view: View) -> None:
    import json

    from local_imager.deliver.bundle.tarform import part_size

    label, sizes = head.label, range(1, head.label.count + 1)
    manifest_bytes = len(head.manifest)
    of_parts = [part_size(head.bundle, n, manifest_size_bytes=manifest_bytes) for n in sizes]
    document = {
        "file": file,
        "verified": False,
        "set": str(label.set_digest),
        "part": label.number,
        "parts": label.count,
        "tar_size_bytes": of_parts[label.number - 1],
        "tar_sizes_bytes": of_parts,
        **view.as_dict(),
    }
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _lines(head: Head, view: View) -> Iterator[str]:
    label = head.label
    which = f"part {label.number} of {label.count}" if label.count > 1 else "a bundle in one file"
    yield f"{head.name}: {which}"
    yield f"  identity  {label.set_digest}"
    for name, values in sorted(view.facts.items()):
        yield f"  {name:<8}  {', '.join(values)}"
    yield "  nothing of it was verified: local-imager bundle verify does that"
    yield ""
    yield from _totals(head, view)
    yield from _items("images", "with the signer that the near side saw", view.images)
    yield from _items("assets", "", view.assets)
    yield from _items("documents", "", view.files)
    if label.count > 1:
        yield from _parts(label.number, view.parts)
    yield ""
    yield "biggest blobs"
    for found in view.biggest:
        blob = found.blob
        state = "" if blob.carried else " (not in the bundle)"
        yield f"{human_size(blob.size_bytes):>10}  {blob.digest.short}  {blob.purpose}{state}"


def _totals(head: Head, view: View) -> Iterator[str]:
    from local_imager.deliver.bundle.tarform import part_size

    size = part_size(head.bundle, head.label.number, manifest_size_bytes=len(head.manifest))
    yield f"{human_size(size):>10}  this file (before compression, if it is compressed)"
    yield f"{_amount(view.needed)}  that all items need"
    yield f"{_amount(view.carried)}  of them carried{_in_parts(head.label.count)}"
    if view.since is None:
        return
    yield f"{_amount(view.presumed)}  expected on the far side"
    if view.rebuilt.blobs:
        patches = human_size(view.patches.size_bytes)
        yield f"{_amount(view.rebuilt)}  rebuilt on the far side from {patches} of differences"
    yield "a delta: it can be imported only where the blobs are that this inventory lists:"
    yield f"            {view.since}"


def _in_parts(count: int) -> str:
    return f" in {count} parts" if count > 1 else ""


def _amount(amount: Amount) -> str:
    return f"{human_size(amount.size_bytes):>10}  in {counted(amount.blobs, 'blob')}"


def _items(title: str, remark: str, views: Sequence[ItemView]) -> Iterator[str]:
    if not views:
        return
    yield ""
    yield f"{title} ({len(views)})" + (f"; {remark}" if remark else "")
    for view in views[:_SHOWN]:
        item = view.item
        notes = [", ".join(item.roles), ", ".join(item.arches)]
        yield f"{human_size(view.size_bytes):>10}  {_name(item.name)}"
        more = "  ".join(note for note in (item.descriptor.digest.short, *notes) if note)
        if item.kind != "document":
            yield f"            {more}"
        if item.signer:
            yield f"            {printable(item.signer, limit=300)}"
    if len(views) > _SHOWN:
        yield f"            … and {len(views) - _SHOWN} more (--json lists all)"


def _parts(own: int, parts: Sequence[PartView]) -> Iterator[str]:
    yield ""
    yield "what the parts hold"
    for part in parts:
        mark = " (this file)" if part.number == own else ""
        yield f"{human_size(part.size_bytes):>10}  part {part.number}{mark}"
        yield from (f"            {_name(name)}" for name in part.items)


def _name(name: str) -> str:
    """Cut the schematic ID in an asset's name short, as `store ls` does."""
    return printable(_SCHEMATIC_ID.sub(lambda found: found[0][:12], name), limit=300)
