"""``local-imager inspect``: say what a boot file is, of whatever origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_imager.cli.jsontext import UNSAFE, echo_json
from local_imager.errors import InputError, LocalImagerError, NotFound

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.inspect.inspection import Inspection
    from local_imager.deliver.inspect.limits import Digests
    from local_imager.store.store import Store


@click.command("inspect")
@click.argument("what", metavar="FILE|ASSET")
@click.option("--parts", is_flag=True, help="Show the tree of parts with digests too.")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Show N levels of parts.")
@click.option("--full", is_flag=True, help="Hash disks and large partitions as a whole too.")
@click.option("--schematic", is_flag=True, help="Write the schematic's text, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_obj
def inspect(
    app: App,
    what: str,
    parts: bool,
    depth: int | None,
    full: bool,
    schematic: bool,
    as_json: bool,
) -> None:
    """Say what FILE is: version, schematic, extensions, kernel arguments, META, signatures, …

    Kernels, initramfs, UKIs, ISOs, disks (raw, qcow2, vhd, ova), installers, and all of them
    compressed, from this program or any other. An ASSET of the store has the names that `store
    show` takes. Nothing is mounted, executed or trusted.
    """
    if schematic and as_json:
        raise click.UsageError("--schematic writes YAML: give it or --json")
    from local_imager.deliver.inspect.inspection import inspect_file

    store = _store(app, needed=not Path(what).exists())
    path, name = _path(what, store)
    whole: Digests = "all" if full else "parts"
    shows_parts = as_json or parts or depth is not None
    digests = whole if shows_parts or full else "meaning"
    done = inspect_file(path, sink=app.sink, store=store, digests=digests, name=name)
    if schematic:
        click.echo(_plain(_schematic_of(done)), nl=False)
    elif as_json:
        echo_json(_document(done, depth))
    else:
        from local_imager.cli.inspectlines import lines_of

        for line in lines_of(done, parts=parts or depth is not None, depth=depth):
            click.echo(line)


def _store(app: App, *, needed: bool) -> Store | None:
    """Open the store if there is one; none is made, and a file is told without one too."""
    from local_imager.store.store import Store

    try:
        return Store.open(app.settings.store, create=False)
    except NotFound:
        return None
    except LocalImagerError:
        if needed:
            raise
        return None


def _path(what: str, store: Store | None) -> tuple[Path, str]:
    """Return the file that is meant and its name; a file of that name comes before an asset."""
    path = Path(what)
    if path.is_file():
        return path, path.name
    if what and path.is_dir():
        raise InputError(
            f"{what} is a directory", hint="give a file, such as an ISO or a disk image"
        )
    if what and path.exists():
        raise InputError(f"{what} is no regular file", hint="copy it into a file first")
    hint = "give a file, or a name that `local-imager store ls` shows"
    if store is None or not what:
        raise InputError(f"there is no file {what!r}", hint=hint)
    try:
        asset = store.show(what)
    except NotFound:
        message = f"there is no file {what!r}, and no such asset in the store"
        raise InputError(message, hint=hint) from None
    return asset.path, asset.asset


def _document(done: Inspection, depth: int | None) -> dict[str, Any]:
    document = done.as_dict()
    if depth is not None:
        _cut(document["parts"], depth)
    return document


def _cut(part: dict[str, Any], depth: int) -> None:
    """Leave the levels out that were not asked for, and say how many parts those have."""
    for child in part.get("children", ()):
        if depth > 1:
            _cut(child, depth - 1)
        elif child.get("children"):
            child["parts_below"] = _count(child)
            del child["children"]


def _count(part: dict[str, Any]) -> int:
    return sum(1 + _count(child) for child in part.get("children", ()))


def _schematic_of(done: Inspection) -> str:
    if done.meaning.schematic is not None:
        return _checked(done.meaning.schematic, done.meaning.schematic_id)
    if done.known is not None and done.known.schematic is not None:
        return done.known.schematic
    if done.remake is not None:
        why = done.remake.guessed
        if why:
            click.echo(f"this schematic is a guess: {why}", err=True)
        return done.remake.schematic
    raise InputError("the file shows no schematic", hint="run without --schematic to see why")


def _checked(untrusted_text: str, schematic_id: str) -> str:
    """Return a schematic's text from a file if it is the one that its ID names."""
    import hashlib

    data = untrusted_text.encode(errors="surrogatepass")
    if hashlib.sha256(data).hexdigest() != schematic_id:
        raise InputError(
            "the schematic's text in the file does not have the ID that stands beside it",
            hint="the file was altered or is damaged; --json shows the text and the ID",
            code="schematic-mismatch",
        )
    return untrusted_text


def _plain(untrusted_text: str) -> str:
    """Return a text that may go to a terminal as it is; escaped it would have another ID."""
    if UNSAFE.search(untrusted_text):
        raise InputError(
            "the schematic's text holds control characters, which could alter a terminal",
            hint="--json shows it with these escaped",
            code="schematic-unsafe",
        )
    return untrusted_text
