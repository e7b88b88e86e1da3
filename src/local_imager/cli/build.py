"""``local-imager build``: from a schematic to exported files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_imager.cli.lock import LockedCommand, locked_option, read_locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_imager.cli.context import App
    from local_imager.pipeline import BuildResult


def complete_asset(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the asset names that begin like this (shell completion)."""
    from local_imager.profile.assetname import all_names

    return [str(name) for name in all_names() if str(name).startswith(incomplete)]


@click.command("build", cls=LockedCommand)
@click.argument("schematic", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("assets", nargs=-1, metavar="[ASSET]...", shell_complete=complete_asset)
@click.option("--version", required=True, metavar="V", help="Talos version, such as v1.9.0.")
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
@click.option("--dry-run", is_flag=True, help="Only show the plan, as `plan` does.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def build(
    ctx: click.Context,
    /,
    schematic: str,
    assets: tuple[str, ...],
    version: str,
    out: str | None,
    no_export: bool,
    exact: bool,
    offline: bool,
    rebuild: bool,
    verify_reproducible: bool,
    dry_run: bool,
    locked: str | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Build ASSETs of a SCHEMATIC (a file, or - for standard input) and export them.

    Assets have the factory's path names: metal-amd64.iso, nocloud-amd64.raw.xz,
    installer-arm64.tar, metal-amd64-secureboot-uki.efi, … Without any, the ISO for this machine's
    architecture is built.
    """
    if dry_run:
        from local_imager.cli.plan import plan

        forwarded = {"builder": flags["builder"], "source": flags["source"]}
        forwarded["secureboot_keys"] = flags["secureboot_keys"]
        ctx.invoke(
            plan,
            schematic=schematic,
            assets=assets,
            version=version,
            offline=offline,
            locked=locked,
            as_json=as_json,
            **forwarded,
        )
        return
    from local_imager.pipeline import BuildOrder, default_asset
    from local_imager.schematic.parse import read_schematic

    app: App = ctx.obj.with_flags({**flags, "out": out})
    order = BuildOrder(
        read_schematic(schematic),
        version,
        assets or (default_asset(),),
        exact=exact,
        offline=offline,
        rebuild=rebuild,
        export_to=None if no_export else app.settings.out,
        lock=read_locked(locked),
    )
    results = app.factory.build(order)
    documents = [result.as_dict() for result in results]
    if not as_json:
        _print_table(results)
    answers = None
    if verify_reproducible:
        from local_imager.cli import reproduce

        answers = reproduce.verified(app, order, results)
        documents = reproduce.with_answers(documents, answers)
        if not as_json:
            reproduce.print_answers(answers)
    if as_json:
        import json

        click.echo(json.dumps(documents, indent=2))
    if answers is not None:
        ctx.exit(reproduce.exit_code(answers))


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
