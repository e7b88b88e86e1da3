"""``local-imager bundle diff``: what two bundles differ in, and what a far side lacks of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from local_imager.cli.sizes import counted, human_size
from local_imager.errors import ExitCode, InputError, SourceError
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.deliver.bundle.form.inventory import Inventory
    from local_imager.deliver.bundle.look.diff import Lacking
    from local_imager.deliver.bundle.reading.head import Head

_SHOWN: Final = 200


@click.command("diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, as_json: bool) -> None:
    """Say in words what changed from bundle A to bundle B; exits 4 when they differ.

    Only the heads of the files are read, and nothing is verified. In place of A or B may stand
    what `store inventory` wrote on the far side: then it says which images and assets that side
    lacks.
    """
    first, second = _read(a), _read(b)
    from local_imager.deliver.bundle.reading.head import Head

    if isinstance(first, Head) and isinstance(second, Head):
        differs = _two_bundles(first, second, as_json)
    elif isinstance(first, Head):
        differs = _far_side(second, first, as_json)
    else:
        differs = _far_side(first, second, as_json)
    if differs:
        ctx.exit(ExitCode.COMPARISON_DIFFERS)


def _read(path: str) -> Head | Inventory:
    """Tell a bundle from an inventory by its first byte: only one of them is JSON."""
    from local_imager.deliver.bundle.form.inventory import read_inventory
    from local_imager.deliver.bundle.reading.head import read_head

    if not _is_json(Path(path)):
        return read_head(path)
    try:
        return read_inventory(Path(path))
    except SourceError as error:
        raise InputError(
            f"{printable(path, limit=300)} is neither a bundle nor an inventory: {error.message}",
            hint="name files that `bundle create` (site.tar) or `store inventory` wrote",
            code="not-a-bundle",
            source=path,
        ) from error


def _is_json(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(64).lstrip().startswith(b"{")


def _two_bundles(old: Head, new: Head, as_json: bool) -> bool:
    from local_imager.deliver.bundle.look.diff import differences, lacking
    from local_imager.deliver.bundle.look.view import needed_blobs

    found = differences(old.bundle, new.bundle)
    same = old.label.set_digest == new.label.set_digest
    missing = lacking(new.bundle, needed_blobs(old.bundle))
    if as_json:
        document = {
            "verified": False,
            "equal": same,
            "sets": [str(head.label.set_digest) for head in (old, new)],
            "changes": [one.as_dict() for one in found],
            "lacking": missing.as_dict(),
        }
        click.echo(json.dumps(document, indent=2))
        return not same
    for one in found:
        click.echo(printable(one.text))
    if same:
        click.echo(
            "they are " + ("the same bundle" if _same_file(old, new) else "parts of one bundle")
        )
    else:
        if not found:
            click.echo("they bring the same in the same form; only their manifests are spelt apart")
        click.echo(f"what {new.name} brings and {old.name} does not: {_share(missing)}")
    return not same


def _same_file(old: Head, new: Head) -> bool:
    return old.label.number == new.label.number


def _far_side(far: Head | Inventory, bundle: Head | Inventory, as_json: bool) -> bool:
    from local_imager.deliver.bundle.form.inventory import Inventory
    from local_imager.deliver.bundle.look.diff import far_side_lacks
    from local_imager.deliver.bundle.reading.head import Head

    if not isinstance(far, Inventory) or not isinstance(bundle, Head):
        raise InputError(
            "both files are inventories: one has to be a bundle",
            hint="local-imager bundle diff far.json site.tar says what the far side lacks",
        )
    missing = far_side_lacks(bundle.bundle, far.blobs)
    if as_json:
        document = {
            "verified": False,
            "equal": not missing.missing.blobs,
            "set": str(bundle.label.set_digest),
            "inventory": str(far.digest),
            "lacking": missing.as_dict(),
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for line in _lacks(missing):
            click.echo(line)
        click.echo(f"the far side lacks of {bundle.name}: {_share(missing)}")
    return bool(missing.missing.blobs)


def _lacks(missing: Lacking) -> Iterator[str]:
    from local_imager.deliver.bundle.form.words import short_name

    for lack in missing.items[:_SHOWN]:
        name = printable(short_name(lack.item.name), limit=300)
        size, whole = (human_size(one.size_bytes) for one in (lack.missing, lack.needed))
        of_all = "" if size == whole else f" (of {whole})"
        yield f"{size:>10}  {lack.item.kind} {name}{of_all}"
    if len(missing.items) > _SHOWN:
        yield f"            … and {len(missing.items) - _SHOWN} more (--json lists all)"


def _share(missing: Lacking) -> str:
    if not missing.missing.blobs:
        return "nothing"
    total = missing.needed.size_bytes
    percent = 100 * missing.missing.size_bytes / total if total else 100
    return (
        f"{counted(missing.missing.blobs, 'blob')} of {missing.needed.blobs}, "
        f"{human_size(missing.missing.size_bytes)} of {human_size(total)} ({percent:.1f} %)"
    )
