"""``local-imager plan``: what a build would do, without doing it and without an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_imager.cli.build import complete_asset
from local_imager.cli.lock import LockedCommand, locked_option, read_locked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_imager.cli.context import App
    from local_imager.pipeline import PlannedAsset


@click.command("plan", cls=LockedCommand)
@click.argument("schematic", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("assets", nargs=-1, metavar="[ASSET]...", shell_complete=complete_asset)
@click.option("--version", required=True, metavar="V", help="Talos version, such as v1.9.0.")
@click.option("--builder", metavar="V|newest|same", help="Which imager would run.")
@click.option("--from", "source", metavar="PLACE", help="Read images from this layout or registry.")
@click.option("--offline", is_flag=True, help="Look only into the store.")
@locked_option
@click.option("--secureboot-keys", metavar="DIR", help="Directory of the secure boot keys.")
@click.option("--show-secrets", is_flag=True, help="Show configuration, arguments and META.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(
    app: App,
    /,
    schematic: str,
    assets: tuple[str, ...],
    version: str,
    offline: bool,
    as_json: bool,
    locked: str | None = None,
    show_secrets: bool = False,
    **flags: object,
) -> None:
    """Show for each ASSET of a SCHEMATIC the imager profile, the images and what is there already.

    Catalogues are read (and verified) when a source is at hand, so that digests are known;
    without one the plan names what it would need.
    """
    import json

    from local_imager.pipeline import BuildOrder, default_asset
    from local_imager.schematic.parse import read_schematic

    app = app.with_flags(flags)
    order = BuildOrder(
        read_schematic(schematic),
        version,
        assets or (default_asset(),),
        offline=offline,
        lock=read_locked(locked),
    )
    planned = app.factory.plan(order)
    documents = [entry.as_dict(show_secrets=show_secrets) for entry in planned]
    if as_json:
        document = {
            "schematic_id": planned[0].plan.schematic_id,
            "version": version,
            "assets": documents,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"schematic {planned[0].plan.schematic_id}  version {version}")
    for entry, document in zip(planned, documents, strict=True):
        _print_entry(entry, document)


def _print_entry(entry: PlannedAsset, document: Mapping[str, object]) -> None:
    import yaml

    state = "in the store already" if entry.cached else "to be built"
    click.echo()
    click.echo(click.style(entry.plan.asset, bold=True) + f"  ({state})")
    click.echo(f"  base {entry.plan.version}, builder {entry.plan.builder or 'not known yet'}")
    for warning in entry.plan.warnings:
        click.echo(click.style("  note: ", fg="yellow") + warning)
    for requirement in entry.requirements:
        where = "in the store" if requirement.in_store else "to be fetched"
        click.echo(f"  {requirement.role:<20} {requirement.reference}  {where}")
    text = yaml.safe_dump(document["profile"], sort_keys=False)
    click.echo("  profile:\n" + "".join(f"    {line}\n" for line in text.splitlines()), nl=False)
    by_hand = "by hand"
    if entry.normalised:
        click.echo(
            "  initramfs: packed with its extensions in a run of its own, times set to the epoch"
        )
        by_hand = "by hand (the same content in one run, with the time of that run in it)"
    click.echo(f"  {by_hand}:\n    {entry.command}")
