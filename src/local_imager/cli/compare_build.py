"""``local-imager compare --build``: a whole set built, compared and summed up.

``cli/compare.py`` holds the command itself, which has these options and hands over to
:func:`run_build` when ``--build`` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from local_imager.cli.lock import locked_option, read_locked
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.compare.batch import BatchEntry, BatchResult
    from local_imager.deliver.compare.sides import SideContext
    from local_imager.deliver.compare.verdict import Comparison

Command = TypeVar("Command", bound=Callable[..., Any])

BUILD_OPTIONS: Final = (
    click.option(
        "--build",
        "schematic",
        metavar="SCHEMATIC",
        help="Build this schematic's assets, and compare each with --against.",
    ),
    click.option("--version", metavar="V", help="Talos version of the build, such as v1.13.0."),
    click.option(
        "--against",
        metavar="PLACE",
        help="factory: (default), store, a directory of files, or a pattern with {asset}.",
    ),
    click.option("--upload", is_flag=True, help="Send the schematic to the factory first."),
    click.option("--exact", is_flag=True, help="Let the imager do every step itself."),
    click.option("--rebuild", is_flag=True, help="Build also what the store has already."),
    click.option("--builder", metavar="V|newest|same", help="Which imager runs."),
    click.option(
        "--from", "source", metavar="PLACE", help="Read images from this layout or registry."
    ),
    locked_option,
    click.option("--secureboot-keys", metavar="DIR", help="Directory of the secure boot keys."),
)
_BUILD_ONLY: Final = {
    "version": "--version",
    "against": "--against",
    "upload": "--upload",
    "exact": "--exact",
    "rebuild": "--rebuild",
    "builder": "--builder",
    "source": "--from",
    "locked": "--locked",
    "secureboot_keys": "--secureboot-keys",
}
_SETTINGS: Final = ("builder", "source", "secureboot_keys")


def build_options(command: Command) -> Command:
    """Give a command the options of ``--build``."""
    for option in reversed(BUILD_OPTIONS):
        command = option(command)
    return command


def refuse_build_flags(flags: Mapping[str, Any]) -> None:
    """Refuse flags of ``--build`` that were given without it; raises ``click.UsageError``."""
    given = [option for name, option in _BUILD_ONLY.items() if flags.get(name)]
    if given:
        raise click.UsageError(f"{given[0]} goes with --build SCHEMATIC")


def run_build(
    ctx: click.Context,
    assets: tuple[str, ...],
    context: SideContext,
    flags: Mapping[str, Any],
    *,
    strict: bool,
    as_json: bool,
    html: str | None,
    limit: int | None,
) -> None:
    """Build, compare and report; ends with the exit code of the worst.

    ``flags`` are those of :func:`build_options`; whether ``html`` may be written is checked.
    """
    from local_imager.deliver.compare.batch import compare_batch
    from local_imager.pipeline import BuildOrder, default_asset
    from local_imager.schematic.parse import read_schematic

    if not flags.get("version"):
        raise click.UsageError("--build needs --version V")
    app: App = ctx.obj.with_flags({name: flags.get(name) for name in _SETTINGS})
    order = BuildOrder(
        read_schematic(flags["schematic"]),
        flags["version"],
        assets or (default_asset(),),
        exact=bool(flags.get("exact")),
        offline=context.offline,
        rebuild=bool(flags.get("rebuild")),
        lock=read_locked(flags.get("locked")),
    )
    result = compare_batch(
        order,
        flags.get("against") or "factory:",
        app.factory,
        context,
        upload=bool(flags.get("upload")),
        strict=strict,
        limit=limit,
        sink=app.sink,
    )
    if html:
        _write_page(result, html)
    if as_json:
        from local_imager.cli.jsontext import echo_json

        echo_json(result.as_dict())
    else:
        _print_set(result)
    ctx.exit(result.exit_code)


def _write_page(result: BatchResult, html: str) -> None:
    from local_imager.cli.compare import write_file
    from local_imager.deliver.compare.page import render_summary

    title = f"Talos {result.version}, schematic {result.schematic_id[:12]}, {result.against}"
    private = any(e.comparison is not None and e.comparison.shows_secrets for e in result.entries)
    page = render_summary(title, [(e.asset, _outcome(e)) for e in result.entries])
    write_file(html, page, private=private)
    click.echo(f"page: {printable(html, limit=500)}", err=True)


def _outcome(entry: BatchEntry) -> Comparison | str:
    if entry.comparison is not None:
        return entry.comparison
    error = entry.error
    return f"{error.message} ({error.hint})" if error and error.hint else str(error or "")


def _print_set(result: BatchResult) -> None:
    click.echo(
        f"schematic {result.schematic_id}  version {result.version}  against {result.against}"
    )
    rows = [(entry.asset, *_row(entry)) for entry in result.entries]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for entry, row in zip(result.entries, rows, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        colour = _colour(entry, strict=result.strict)
        cells[1] = click.style(cells[1], fg=colour)
        click.echo("  ".join([*cells, row[3]]).rstrip())
    for entry in result.entries:
        _print_details(entry)
    counted = ", ".join(f"{number} {word}" for word, number in result.counts.items() if number)
    click.echo(f"\n{counted}; exit code {int(result.exit_code)}")


def _row(entry: BatchEntry) -> tuple[str, str, str]:
    from local_imager.deliver.compare.report import verdict_text

    if entry.built is None:
        built = "not built"
    else:
        built = "cached" if entry.built.cached else f"{entry.built.duration_s:.1f} s"
    if entry.comparison is None:
        return "failed", built, entry.error.code if entry.error else ""
    word, _, rest = verdict_text(entry.comparison).partition(": ")
    return word, built, rest


def _colour(entry: BatchEntry, *, strict: bool) -> str:
    return "red" if entry.exit_code(strict=strict) else "green"


def _print_details(entry: BatchEntry) -> None:
    """Print what differs, or why there is no result; equal assets need no word more."""
    from local_imager.cli.compare import echo_report
    from local_imager.cli.main import report
    from local_imager.deliver.compare.verdict import Verdict

    if entry.error is not None:
        click.echo(f"\n{entry.asset}", err=True)
        report(entry.error, as_json=False)
    elif entry.comparison is not None and entry.comparison.verdict is Verdict.DIFFERENT:
        click.echo(f"\n{entry.asset}")
        echo_report(entry.comparison)
