"""``local-imager compare``: whether two boot files are the same, and exactly where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.cli.compare_build import build_options, refuse_build_flags, run_build
from local_imager.cli.jsontext import echo_json
from local_imager.cli.lock import LockedCommand
from local_imager.errors import InputError, LocalImagerError
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.compare.report import Role
    from local_imager.deliver.compare.verdict import Comparison
    from local_imager.store.store import Store

_COLOURS: Final[dict[Role, dict[str, object]]] = {
    "verdict": {"bold": True},
    "side": {},
    "difference": {"bold": True},
    "left": {"fg": "red"},
    "right": {"fg": "green"},
    "text": {},
    "quiet": {"dim": True},
}
_VERDICT_COLOURS: Final = ("green", "green", "yellow", "red")


@click.command("compare", cls=LockedCommand)
@click.argument("names", nargs=-1, metavar="A B | --build SCHEMATIC [ASSET]...")
@click.option("--strict", is_flag=True, help="Exit 0 only when the bytes are identical.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--html", metavar="FILE", help="Write the report as a page, too.")
@click.option("--force", is_flag=True, help="Replace the page if it exists.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Report N differences at most; all are counted (default 200).",
)
@click.option("--factory", metavar="URL", help="The factory that factory: means.")
@click.option("--arch", metavar="ARCH", help="Of an image for several architectures, take this.")
@click.option("--refetch", is_flag=True, help="Fetch from the factory again.")
@click.option("--offline", is_flag=True, help="Ask no factory and no registry.")
@build_options
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    strict: bool,
    as_json: bool,
    html: str | None,
    force: bool,
    limit: int | None,
    **flags: Any,
) -> None:
    """Say whether A and B are the same, and name every place where they are not.

    A and B are files, assets as `store ls` shows them, factory:SCHEMATIC_ID/VERSION/ASSET, or
    images of a registry. Exits 0 for identical bytes, for the same content packed differently and
    for named noise (docs/compare.md lists it), and 4 for differences.

    With --build, ASSETs of a schematic are built and each is compared with its counterpart; the
    exit code is the worst one's.
    """
    from local_imager.deliver.compare.batch import exit_code_of
    from local_imager.deliver.compare.pair import compare_sides
    from local_imager.deliver.compare.sides import SideContext, open_side

    if flags["schematic"] is None:
        refuse_build_flags(flags)
    if len(names) != 2 and flags["schematic"] is None:
        raise click.UsageError("name two sides: local-imager compare A B")
    app: App = ctx.obj
    if html:
        _refuse_existing(html, force)
    context = SideContext(
        app.settings,
        app.store,
        sink=app.sink,
        factory=flags["factory"] or "",
        arch=flags["arch"] or "",
        refetch=flags["refetch"],
        offline=flags["offline"],
    )
    if flags["schematic"] is not None:
        run_build(
            ctx, names, context, flags, strict=strict, as_json=as_json, html=html, limit=limit
        )
    left, right = (open_side(name, context) for name in names)
    for side in (left, right):
        if side.trust and not as_json:
            click.echo(f"{printable(side.asked, limit=300)}: {printable(side.trust)}", err=True)
    comparison = compare_sides(left, right, store=_store(app), limit=limit, sink=app.sink)
    if html:
        write_page(html, comparison)
    if as_json:
        echo_json(comparison.as_dict())
    else:
        echo_report(comparison)
        if html:
            click.echo(f"page: {printable(html, limit=500)}", err=True)
    ctx.exit(exit_code_of(comparison.verdict, strict=strict))


def echo_report(comparison: Comparison) -> None:
    """Print the report of one comparison, in colours where the terminal has them."""
    from local_imager.deliver.compare.report import report_lines

    for line in report_lines(comparison):
        colours = dict(_COLOURS[line.role])
        if line.role == "verdict":
            colours["fg"] = _VERDICT_COLOURS[comparison.verdict]
        click.echo(click.style(line.text, **colours))  # type: ignore[arg-type]


def write_page(path: str, comparison: Comparison) -> None:
    """Write the page of a comparison; raises :class:`LocalImagerError` when it cannot be."""
    from local_imager.deliver.compare.page import render_page

    write_file(path, render_page(comparison), private=comparison.shows_secrets)


def write_file(path: str, data: bytes, *, private: bool) -> None:
    """Write a report as a whole or not at all; a private one for its owner alone."""
    import os
    import tempfile

    target = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".page-", delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o600 if private else 0o644)
        os.replace(file.name, target)
    except OSError as error:
        raise LocalImagerError(
            f"{printable(path, limit=300)} cannot be written: {error.strerror}",
            hint="name a file in a folder of yours",
        ) from error


def _refuse_existing(path: str, force: bool) -> None:
    """Refuse before the work what would fail after it."""
    target = Path(path)
    if target.exists() and not force:
        raise InputError(f"{printable(path, limit=300)} exists already", hint="--force replaces it")
    if not target.parent.is_dir():
        raise InputError(
            f"there is no folder {printable(str(target.parent), limit=300)}",
            hint="make it first, or name another file",
        )


def _store(app: App) -> Store | None:
    """Return the store if there is one; none is made to look up who built a file."""
    from local_imager.errors import NotFound
    from local_imager.store.store import Store

    try:
        return Store.open(app.settings.store, create=False)
    except (NotFound, OSError):
        return None
