"""``local-imager schematic lint``: what of a schematic fails or has no effect, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_imager.errors import ExitCode

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.profile.assetname import AssetName
    from local_imager.profile.effects import Finding
    from local_imager.profile.model import Catalogue
    from local_imager.profile.version import TalosVersion

_DEFAULT_ENDINGS = (".iso", ".raw.zst")
_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command("lint")
@click.argument("schematic")
@click.option("--version", metavar="V", help="Talos version (default: the newest one known here).")
@click.option(
    "--asset",
    "assets",
    multiple=True,
    metavar="NAME",
    help="Look at this asset; may be repeated (default: metal ISO, disk and installer).",
)
@click.option("--offline", is_flag=True, help="Look names up in the store only.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def lint(
    ctx: click.Context,
    schematic: str,
    version: str | None,
    assets: tuple[str, ...],
    offline: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Say what in SCHEMATIC (a file, or - for standard input) fails or will not take effect.

    Exit code 2 when there are errors (with --strict also when there are warnings), else 0.
    """
    import json

    from local_imager.profile.assetname import AssetName
    from local_imager.profile.lint import lint as find
    from local_imager.profile.quirks import NEWEST_KNOWN
    from local_imager.profile.version import TalosVersion
    from local_imager.schematic.canonical import schematic_id
    from local_imager.schematic.parse import read_schematic

    wanted = TalosVersion.parse(version) if version else NEWEST_KNOWN
    read = read_schematic(schematic)
    names = [AssetName.parse(name) for name in assets] or _default_assets(bool(read.overlay.name))
    named = bool(read.customization.official_extensions or read.overlay.name)
    catalogue = _catalogue(ctx.obj, wanted, offline=offline) if named else None
    findings = find(read, wanted, names, catalogue)
    if as_json:
        document = {
            "schematic_id": str(schematic_id(read)),
            "version": str(wanted),
            "assets": [str(name) for name in names],
            "names_looked_up": catalogue is not None or not named,
            "findings": [finding.as_dict() for finding in findings],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        _print(findings, wanted, names, looked_up=catalogue is not None or not named)
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.severity in failing for finding in findings):
        ctx.exit(ExitCode.INPUT_INVALID)


def _catalogue(app: App, version: TalosVersion, *, offline: bool) -> Catalogue | None:
    """Return the version's catalogue from the store, else from the source; None without one."""
    from local_imager.errors import SourceError, VerificationRefused
    from local_imager.events import Message

    try:
        return app.factory.offline_sources.catalogue(version)
    except (SourceError, VerificationRefused) as error:
        missing: SourceError | VerificationRefused = error
    if not offline:
        try:
            return app.factory.sources.catalogue(version)
        except (SourceError, VerificationRefused) as error:
            missing = error
    app.sink.emit(Message(f"linted without a catalogue: {missing.message}", "warning"))
    return None


def _default_assets(for_board: bool) -> list[AssetName]:
    from local_imager.profile.assetname import AssetName, installer_name

    arch = "arm64" if for_board else "amd64"
    names = [AssetName.parse(f"metal-{arch}{ending}") for ending in _DEFAULT_ENDINGS]
    return [*names, installer_name("metal", "arm64" if for_board else "amd64", secureboot=False)]


def _print(
    findings: list[Finding], version: TalosVersion, names: list[AssetName], *, looked_up: bool
) -> None:
    for finding in findings:
        label = click.style(f"{finding.severity:<8}", fg=_COLOURS[finding.severity])
        where = f" ({finding.asset})" if finding.asset else ""
        click.echo(f"{label}{finding.field}{where}: {finding.message}")
    checked = f"Talos {version}, {', '.join(map(str, names))}"
    note = "" if looked_up else "; names of extensions and overlays were not looked up"
    click.echo(f"{len(findings) or 'no'} findings for {checked}{note}", err=True)
