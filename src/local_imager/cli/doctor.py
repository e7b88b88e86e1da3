"""``doctor``: what this host can and cannot do, and how to mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from local_imager.errors import ExitCode, LocalImagerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local_imager.build.doctor import Check
    from local_imager.cli.context import App
    from local_imager.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--settings", "list_settings", is_flag=True, help="List every setting instead.")
@click.option("--host", default="", metavar="URL", help="Look at this engine, not the default one.")
@click.pass_obj
def doctor(app: App, as_json: bool, list_settings: bool, host: str) -> int:
    """Say what this host can and cannot do, and how to mend it.

    Exits with 5 when builds cannot work here.
    """
    if list_settings:
        _print_settings(app.settings, as_json=as_json)
        return ExitCode.OK
    checks = _all_checks(app, host)
    able = not any(check.status == "fail" for check in checks)
    if as_json:
        document = {"able": able, "checks": [check.as_dict() for check in checks]}
        click.echo(json.dumps(document, indent=2))
    else:
        _print_checks(checks)
        word = "this host can build" if able else "this host cannot build yet"
        click.echo(click.style(word, bold=True))
    return ExitCode.OK if able else ExitCode.HOST_UNABLE


def _all_checks(app: App, host: str) -> list[Check]:
    from local_imager.build.doctor import check_host
    from local_imager.build.runner import DockerRunner

    settings = app.settings
    runner = DockerRunner(host)
    try:
        checks = list(
            check_host(
                runner,
                store=settings.store,
                out=settings.out,
                memory_bytes=settings.memory_bytes,
            )
        )
    finally:
        runner.close()
    return [*checks, _store_content(settings), _upstream(settings)]


def _store_content(settings: Settings) -> Check:
    from local_imager.build.doctor import Check
    from local_imager.store.store import Store

    if not settings.store.exists():
        return Check("store content", "ok", "there is no store yet; the first use makes it")
    try:
        store = Store.open(settings.store, create=False)
        assets, images = len(store.assets()), len(store.images())
    except LocalImagerError as error:
        fix = error.hint or "look with `local-imager store fsck`"
        return Check("store content", "fail", error.message, fix)
    return Check("store content", "ok", f"{assets} assets, {images} source images")


def _upstream(settings: Settings) -> Check:
    from local_imager.build.doctor import Check

    place = settings.source or f"https://{settings.registry}"
    return Check("upstream", "ok", f"images named {settings.registry}/… are read from {place}")


def _print_checks(checks: Iterable[Check]) -> None:
    for check in checks:
        mark = click.style(f"{check.status:>4}", fg=_COLOURS[check.status], bold=True)
        click.echo(f"{mark}  {check.name:<16} {check.detail}")
        if check.fix:
            for line in check.fix.splitlines():
                click.echo(f"{'':22} → {line}")


def _print_settings(settings: Settings, *, as_json: bool) -> None:
    from local_imager.settings import SETTINGS

    rows = [
        {
            "key": setting.key,
            "variable": "" if setting.loosens else setting.variable,
            "value": str(getattr(settings, setting.field)),
            "meaning": setting.meaning,
        }
        for setting in SETTINGS
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = row["variable"] or "(only your own settings file, or a flag)"
        click.echo(click.style(row["key"], bold=True) + f" = {row['value']}")
        click.echo(f"    {row['meaning']}; {where}")
