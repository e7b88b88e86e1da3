"""``local-imager store``: look into the store, export from it, clean and check it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.cli.sizes import human_size
from local_imager.errors import ExitCode, InputError, NotFound

if TYPE_CHECKING:
    from local_imager.store.foreign import ForeignFile
    from local_imager.store.gc import Collected
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store

_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _store(ctx: click.Context) -> Store:
    store: Store = ctx.obj.store()
    return store


def _size_of(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise InputError(f"{text!r} is not a size", hint="write 500MiB, 20GiB or a number of bytes")
    return int(float(match[1]) * 1024 ** _UNITS[match[2]])


@click.group("store")
def store() -> None:
    """Look into and clean the content-addressed store (an OCI layout: skopeo reads it too)."""


@store.command("ls")
@click.option("--images", is_flag=True, help="List source images too.")
@_json_option
@click.pass_context
def list_assets(ctx: click.Context, images: bool, as_json: bool) -> None:
    """List the assets in the store, and the foreign files that were fetched to compare with."""
    from local_imager.store.foreign import foreign_files

    opened = _store(ctx)
    assets = opened.assets()
    foreign = foreign_files(opened.layout)
    sources = opened.images() if images or as_json else ()
    if as_json:
        _print_json(
            {
                "path": str(opened.path),
                "assets": [asset.as_dict() for asset in assets],
                "foreign": [one.as_dict() for one in foreign],
                "images": [{"name": e.ref_name, "digest": str(e.digest)} for e in sources],
            }
        )
        return
    lines = []
    for asset in assets:
        secret = "  (secret)" if asset.private else ""
        name = f"{asset.schematic_id[:12]}/{asset.version}/{asset.asset}"
        lines.append(f"{human_size(asset.size_bytes):>10}  {asset.digest.short}  {name}{secret}\n")
    for one in foreign:
        size = human_size(one.size_bytes)
        lines.append(f"{size:>10}  {one.digest.short}  {one.short}  (foreign, unverified)\n")
    for entry in sources:
        lines.append(f"{'image':>10}  {entry.digest.short}  {entry.ref_name}\n")
    click.echo("".join(lines), nl=False)
    if not assets and not foreign and not sources:
        click.echo(f"the store {opened.path} holds no assets yet", err=True)


@store.command("show")
@click.argument("name")
@_json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show one asset: NAME is ID/VERSION/ASSET (ID may be cut short) or the begin of a digest.

    A foreign file is shown by the name that `store ls` gives it. Of an asset it is told too what
    the last `build --verify-reproducible` found.
    """
    from local_imager.deliver.reproduced import last_reproduction
    from local_imager.store.records import StoredAsset

    opened = _store(ctx)
    asset = _meant(opened, name)
    attached = [
        {"type": d.artifact_type, "digest": str(d.digest), "size_bytes": d.size_bytes}
        for d in opened.layout.referrers(asset.manifest.digest)
    ]
    intact = opened.layout.intact(asset.digest, asset.size_bytes)
    document: dict[str, Any] = {**asset.as_dict(), "intact": intact}
    again = last_reproduction(opened, asset) if isinstance(asset, StoredAsset) else None
    if as_json:
        reproduced = again.as_dict() if again is not None else None
        more = {"attached": attached, "reproduced": reproduced, "path": str(asset.path)}
        _print_json({**document, **more})
        return
    for key, value in document.items():
        click.echo(f"{key.replace('_', ' '):>16}  {value}")
    for line in again.sentences() if again is not None else ():
        click.echo(f"{'built again':>16}  {line}")
    for one in attached:
        click.echo(f"{'attached':>16}  {one['type']}  {one['digest']}")


@store.command("export")
@click.argument("name")
@click.argument("dest")
@click.option("--copy", is_flag=True, help="Never hard-link, so that the file may be written to.")
@click.option("--force", is_flag=True, help="Overwrite a foreign or changed file.")
@_json_option
@click.pass_context
def export(
    ctx: click.Context, name: str, dest: str, copy: bool, force: bool, as_json: bool
) -> None:
    """Export an asset to DEST (a file, or a directory that gets the asset's own name)."""
    opened = _store(ctx)
    asset: StoredAsset = opened.show(name)
    place = Path(dest)
    target = place / asset.asset if place.is_dir() or dest.endswith("/") else place
    done = opened.export(asset, target, hard_link=not copy, overwrite=force)
    if as_json:
        _print_json({**asset.as_dict(), "path": str(done.path), "method": done.method})
        return
    click.echo(f"{done.path}  ({human_size(done.size_bytes)}, {done.method})")


@store.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_json_option
@click.pass_context
def remove(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Remove assets, foreign files or images, and every blob that only they needed.

    The name of a held set (`store gc` lists those) gives up what came of an incomplete import.
    """
    from local_imager.store.gc import Rules, collect
    from local_imager.store.incoming import is_incoming

    opened = _store(ctx)
    known = {entry.ref_name for entry in opened.images()}
    known |= {entry.ref_name for entry in opened.layout.entries() if is_incoming(entry)}
    full = [name if name in known else _meant(opened, name).name for name in names]
    _report(collect(opened, Rules(names=full)), as_json)


def _meant(opened: Store, name: str) -> StoredAsset | ForeignFile:
    """Return the asset, else the foreign file, that a name means."""
    from local_imager.store.foreign import find_foreign

    try:
        return opened.show(name)
    except NotFound:
        foreign = find_foreign(opened.layout, name)
        if foreign is None:
            raise
        return foreign


@store.command("gc")
@click.option("--keep-days", type=click.FloatRange(min=0), metavar="N", help="Age limit of assets.")
@click.option("--max-size", metavar="SIZE", help="Least used assets go until the store fits.")
@click.option("--images", is_flag=True, help="Let both limits remove source images too.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@_json_option
@click.pass_context
def gc(
    ctx: click.Context,
    keep_days: float | None,
    max_size: str | None,
    images: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what nothing needs; with a limit, assets that were not used for long too."""
    from local_imager.store.gc import Rules, collect

    max_bytes = _size_of(max_size) if max_size is not None else None
    rules = Rules(keep_days=keep_days, max_bytes=max_bytes, images=images)
    _report(collect(_store(ctx), rules, dry_run=dry_run), as_json)


def _report(done: Collected, as_json: bool) -> None:
    if as_json:
        _print_json(done.as_dict())
        return
    for name in done.names:
        click.echo(f"{'would remove' if done.dry_run else 'removed'}  {name}")
    for name in done.held:
        click.echo(
            f"held  {name}: parts of a bundle that is not complete; import the other parts, or "
            f"give it up with `local-imager store rm {name}`"
        )
    click.echo(
        f"{len(done.blobs)} blobs and {len(done.scraps)} leftovers "
        f"{'would go' if done.dry_run else 'gone'}: {human_size(done.freed_bytes)} freed, "
        f"{human_size(done.kept_bytes)} kept"
    )


@store.command("fsck")
@click.option("--repair", is_flag=True, help="Remove bad blobs and names that are not complete.")
@_json_option
@click.pass_context
def fsck(ctx: click.Context, repair: bool, as_json: bool) -> None:
    """Hash every blob and follow every name; exit code 1 when something is wrong."""
    from local_imager.store.fsck import check

    opened = _store(ctx)
    report = check(opened, repair=repair, jobs=ctx.obj.settings.jobs, sink=ctx.obj.sink)
    if as_json:
        _print_json(report.as_dict())
    else:
        for fault in report.faults:
            needed = f" (needed by {fault.needed_by})" if fault.needed_by else ""
            click.echo(f"{fault.kind}: {fault.subject} {fault.text}{needed}")
        for line in report.repaired:
            click.echo(f"repaired: {line}")
        state = "clean" if report.clean else f"{len(report.faults)} faults"
        click.echo(
            f"{state}: {report.blobs} blobs, {human_size(report.checked_bytes)} hashed, "
            f"{human_size(report.reclaimable_bytes)} could be collected"
        )
    if report.faults and not repair:
        ctx.exit(ExitCode.FAILED)


@store.command("inventory")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, not to standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--names", is_flag=True, help="Tell the names of images and assets too.")
@click.pass_context
def inventory(ctx: click.Context, output: str | None, force: bool, names: bool) -> None:
    """List what the store holds, as JSON: for `bundle create --since FILE` on the other side.

    The document holds digests and sizes and, unless --names is given, no names.
    """
    from local_imager.deliver.bundle.form.inventory import make_inventory, render_inventory

    to_file = output is not None and output != "-"
    if to_file and Path(str(output)).exists() and not force:
        raise InputError(
            f"{output} exists already", hint="choose another name, or add --force to replace it"
        )
    made = make_inventory(_store(ctx), names=names, sink=ctx.obj.sink)
    if not to_file:
        click.echo(render_inventory(made), nl=False)
        return
    from local_imager.oci.durable import explained, replace_file

    with explained(f"write {output}"):
        replace_file(Path(str(output)), render_inventory(made))
    total = human_size(sum(made.blobs.values()))
    click.echo(f"wrote {output}: {len(made.blobs)} blobs, {total}", err=True)
