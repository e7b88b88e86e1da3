"""``local-imager build``: from a schematic to exported files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_imager.cli.build_matrix import (
    BuildFlags,
    MatrixFlags,
    build_cells,
    matrix_options,
)
from local_imager.cli.lock import LockedCommand, locked_option, read_locked
from local_imager.cli.timings import print_timings, timings_document
from local_imager.events import timed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local_imager.cli.context import App
    from local_imager.pipeline import BuildOrder, BuildResult
    from local_imager.pipeline.timing import Stopwatch


def complete_asset(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the asset names that begin like this (shell completion)."""
    from local_imager.profile.assetname import all_names

    return [str(name) for name in all_names() if str(name).startswith(incomplete)]


@click.command("build", cls=LockedCommand)
@click.argument("schematic", type=click.Path(dir_okay=False, allow_dash=True), required=False)
@click.argument("assets", nargs=-1, metavar="[ASSET]...", shell_complete=complete_asset)
@click.option("--version", metavar="V", help="Talos version, such as v1.9.0.")
@matrix_options
@click.option("--out", metavar="DIR", help="Directory that files are exported to (default: out).")
@click.option("--no-export", is_flag=True, help="Keep the result in the store only.")
@click.option("--builder", metavar="V|newest|same", help="Which imager runs (default: newest).")
@click.option("--exact", is_flag=True, help="Let the imager do every step itself, one by one.")
@click.option("--from", "source", metavar="PLACE", help="Read images from this layout or registry.")
@click.option("--offline", is_flag=True, help="Use only what the store holds.")
@locked_option
@click.option("--secureboot-keys", metavar="DIR", help="Directory of the secure boot keys.")
@click.option(
    "--allow-privileged",
    is_flag=True,
    default=None,
    help="Let an imager older than v1.13 have loop devices and mount rights.",
)
@click.option("--timeout", "timeout_s", type=int, metavar="S", help="Seconds a build may take.")
@click.option("--rebuild", is_flag=True, help="Build also what the store has already.")
@click.option(
    "--verify-reproducible",
    is_flag=True,
    help="Build all of it again in other surroundings and compare (exit status 4: it differs).",
)
@click.option("--timings", is_flag=True, help="Show where the time went, phase by phase.")
@click.option("--dry-run", is_flag=True, help="Only show the plan, as `plan` does.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def build(
    ctx: click.Context,
    /,
    schematic: str | None,
    assets: tuple[str, ...],
    version: str | None,
    verify_reproducible: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Build ASSETs of a SCHEMATIC (a file, or - for standard input) and export them.

    Assets have the factory's path names: metal-amd64.iso, nocloud-amd64.raw.xz,
    installer-arm64.tar, metal-amd64-secureboot-uki.efi, … Without any, the ISO for this machine's
    architecture is built.

    With --matrix a file says what is built: schematics × versions × architectures × assets.
    """
    matrix = MatrixFlags.taken_from(flags)
    how = BuildFlags.taken_from(flags)
    if matrix.file is not None:
        alone = {"SCHEMATIC": schematic, "--version": version, "--dry-run": dry_run}
        matrix.refuse({**alone, "--verify-reproducible": verify_reproducible})
        app = ctx.obj.with_flags(flags)
        ctx.exit(build_cells(app, matrix, how, _watched(app, how)))
    matrix.refuse_alone()
    for parameter in ctx.command.params:
        if parameter.name in ("schematic", "version") and not ctx.params[parameter.name]:
            raise click.MissingParameter(ctx=ctx, param=parameter)
    if dry_run:
        _show_plan(ctx, how, schematic, assets, version, flags)
        return
    app = ctx.obj.with_flags(flags)
    watch = _watched(app, how)
    with timed(app.sink, "imports", "pipeline and settings"):
        _ = app.factory
    with timed(app.sink, "order", str(schematic)):
        order = _order(app, how, str(schematic), str(version), assets)
    ctx.exit(_build(app, order, how, watch, verify=verify_reproducible))


def _order(
    app: App, how: BuildFlags, schematic: str, version: str, assets: tuple[str, ...]
) -> BuildOrder:
    from local_imager.pipeline import BuildOrder, default_asset
    from local_imager.schematic.parse import read_schematic

    return BuildOrder(
        read_schematic(schematic),
        version,
        assets or (default_asset(),),
        exact=how.exact,
        offline=how.offline,
        rebuild=how.rebuild,
        export_to=None if how.no_export else app.settings.out,
        lock=read_locked(how.locked),
    )


def _build(
    app: App, order: BuildOrder, how: BuildFlags, watch: Stopwatch | None, *, verify: bool
) -> int:
    """Build, print what came of it, and return the exit code."""
    results = app.factory.build(order)
    documents: list[dict[str, Any]] = [result.as_dict() for result in results]
    if not how.as_json:
        _print_table(results)
    answers = None
    if verify:
        from local_imager.cli import reproduce

        answers = reproduce.verified(app, order, results)
        documents = reproduce.with_answers(documents, answers)
        if not how.as_json:
            reproduce.print_answers(answers)
    if how.as_json:
        import json

        document: object = documents
        if watch is not None:
            document = {"results": documents, **timings_document(watch)}
        click.echo(json.dumps(document, indent=2))
    elif watch is not None:
        print_timings(watch)
    return reproduce.exit_code(answers) if answers is not None else 0


def _watched(app: App, how: BuildFlags) -> Stopwatch | None:
    """Let a stopwatch hear every event of the command, if timings are asked for."""
    if not how.timings:
        return None
    import time

    from local_imager.events import Timing
    from local_imager.pipeline.timing import Stopwatch, process_start_s

    began_s = process_start_s()
    watch = app.sink = Stopwatch(app.sink, began_s)
    watch.emit(Timing("start", "local-imager", time.monotonic() - began_s))
    return watch


def _show_plan(
    ctx: click.Context,
    how: BuildFlags,
    schematic: str | None,
    assets: tuple[str, ...],
    version: str | None,
    flags: Mapping[str, Any],
) -> None:
    from local_imager.cli.plan import plan

    forwarded = {name: flags[name] for name in ("builder", "source", "secureboot_keys")}
    ctx.invoke(
        plan,
        schematic=schematic,
        assets=assets,
        version=version,
        offline=how.offline,
        locked=how.locked,
        as_json=how.as_json,
        **forwarded,
    )


def _print_table(results: Sequence[BuildResult]) -> None:
    from local_imager.cli.sizes import human_size

    click.echo(f"schematic {results[0].schematic_id}  version {results[0].version}")
    rows = [
        (
            str(_shown(result.path)) if result.path else result.asset,
            human_size(result.size_bytes),
            f"sha256:{result.digest.hex[:16]}…",
            "cached" if result.cached else f"{result.duration_s:.1f} s",
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def _shown(path: Path) -> Path:
    """Prefer the short spelling of a path below the current directory."""
    absolute = path.absolute()
    here = Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute
