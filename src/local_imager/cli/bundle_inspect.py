"""``local-imager bundle inspect``: what a bundle says it holds, read from its head alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from local_imager.cli.sizes import counted, human_size
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.deliver.bundle.look.view import Amount, ItemView, PartView, View
    from local_imager.deliver.bundle.reading.head import Head

# Of a hundred extensions the first lines say enough; --json has them all.
_SHOWN: Final = 200
_SHOWN_IN_PART: Final = 6


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
    from local_imager.deliver.bundle.reading.head import read_head

    head = read_head(file)
    if manifest:
        sys.stdout.buffer.write(head.manifest)
        sys.stdout.buffer.flush()
        return
    from local_imager.deliver.bundle.look.view import view_of

    view = view_of(head.bundle)
    if as_json:
        _print_json(file, head, view)
        return
    for line in _lines(head, view):
        click.echo(line)


def _print_json(file: str, head: Head, view: View) -> None:
    import json

    from local_imager.deliver.bundle.form.tarform import part_size

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
    click.echo(json.dumps(document, indent=2))


def _lines(head: Head, view: View) -> Iterator[str]:
    label = head.label
    which = f"part {label.number} of {label.count}" if label.count > 1 else "a bundle in one file"
    yield f"{head.name}: {which}"
    facts = [(name, ", ".join(values)) for name, values in sorted(view.facts.items())]
    rows = [("identity", str(label.set_digest)), *facts]
    rows.append(("verified", "no, this is what the file says of itself (see `bundle verify`)"))
    width = max(len(name) for name, _ in rows)
    yield from (f"  {name:<{width}}  {text}" for name, text in rows)
    yield ""
    yield from _totals(head, view)
    for title, views in (
        ("images", view.images),
        ("assets", view.assets),
        ("documents", view.files),
    ):
        yield from _items(title, views)
    if label.count > 1:
        yield from _parts(label.number, view.parts)
    yield ""
    yield "biggest blobs"
    for found in view.biggest:
        blob = found.blob
        state = "" if blob.carried else " (not in the bundle)"
        yield f"{human_size(blob.size_bytes):>10}  {blob.digest.short}  {blob.purpose}{state}"


def _totals(head: Head, view: View) -> Iterator[str]:
    from local_imager.deliver.bundle.form.tarform import part_size

    size = part_size(head.bundle, head.label.number, manifest_size_bytes=len(head.manifest))
    yield f"{human_size(size):>10}  this file (before compression, if it is compressed)"
    yield f"{_amount(view.needed)} that the items need"
    if view.since is None:
        return
    yield f"{_amount(view.carried)} of them carried"
    yield f"{_amount(view.presumed)} of them expected on the far side"
    if view.rebuilt.blobs:
        patches = human_size(view.patches.size_bytes)
        yield f"{_amount(view.rebuilt)} of them rebuilt there from {patches} of differences"
    yield "a delta: it can be imported only where the blobs are that this inventory lists"
    yield f"            {view.since}"


def _amount(amount: Amount) -> str:
    return f"{human_size(amount.size_bytes):>10}  in {counted(amount.blobs, 'blob')}"


def _items(title: str, views: Sequence[ItemView]) -> Iterator[str]:
    from local_imager.deliver.bundle.form.words import short_signer

    if not views:
        return
    signers = {view.item.signer for view in views}
    signer = short_signer(next(iter(signers))) if len(signers) == 1 else ""
    yield ""
    yield f"{title} ({len(views)})" + (f", signed by {_shown(signer)}" if signer else "")
    for view in views[:_SHOWN]:
        item = view.item
        notes = (item.descriptor.digest.short, ", ".join(item.roles), ", ".join(item.arches))
        yield f"{human_size(view.size_bytes):>10}  {_name(item.name)}"
        yield f"            {'  '.join(note for note in notes if note)}"
        if item.signer and not signer:
            yield f"            signed by {_shown(short_signer(item.signer))}"
    if len(views) > _SHOWN:
        yield f"            … and {len(views) - _SHOWN} more (--json lists all)"


def _parts(own: int, parts: Sequence[PartView]) -> Iterator[str]:
    yield ""
    yield "what the parts hold, beside the documents"
    for part in parts:
        mark = " (this file)" if part.number == own else ""
        yield f"{human_size(part.size_bytes):>10}  part {part.number}{mark}"
        yield from (f"            {_name(name)}" for name in part.items[:_SHOWN_IN_PART])
        if len(part.items) > _SHOWN_IN_PART:
            yield f"            … and {len(part.items) - _SHOWN_IN_PART} more"


def _name(name: str) -> str:
    from local_imager.deliver.bundle.form.words import short_name

    return _shown(short_name(name))


def _shown(untrusted_text: str) -> str:
    return printable(untrusted_text, limit=300)
