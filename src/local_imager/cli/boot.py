"""``local-imager boot-test``: boot a file in QEMU and say what its console showed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.boot import Arch, Firmware


@click.command("boot-test")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--expect", multiple=True, metavar="TEXT", help="Text that the console must show.")
@click.option("--arch", type=click.Choice(["amd64", "arm64"]), help="Default: from the name.")
@click.option("--firmware", type=click.Choice(["uefi", "bios"]), default="uefi")
@click.option("--timeout", "timeout_s", default=300.0, help="Seconds before it is given up.")
@click.option("--memory", "memory_mib", default=1024, help="Memory of the machine in MiB.")
@click.option("--until-seen", is_flag=True, help="Stop when all texts were seen.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def boot_test(
    app: App,
    file: Path,
    expect: tuple[str, ...],
    arch: Arch | None,
    firmware: Firmware,
    timeout_s: float,
    memory_mib: int,
    until_seen: bool,
    as_json: bool,
) -> int:
    """Boot FILE (ISO, disk image, UKI) without network and read its serial console.

    Exits 0 when every --expect text was seen (without any: when the machine powered itself off),
    else 1. Nothing is written to FILE.
    """
    import json

    from local_imager.deliver.boot import BootRequest, boot
    from local_imager.events import printable

    request = BootRequest(
        file,
        arch=arch or ("arm64" if "arm64" in file.name else "amd64"),
        firmware=firmware,
        expect=expect,
        timeout_s=timeout_s,
        memory_mib=memory_mib,
        until_poweroff=not until_seen,
    )
    report = boot(request, sink=app.sink)
    passed = report.passed and (bool(expect) or report.ended == "powered-off")
    lines = [printable(line) for line in report.console.splitlines()]
    if as_json:
        document = {
            "file": str(file),
            "passed": passed,
            "ended": report.ended,
            "missing": list(report.missing),
            "duration_s": round(report.duration_s, 2),
            "console": lines,
        }
        click.echo(json.dumps(document, indent=2))
        return 0 if passed else 1
    click.echo("\n".join(lines[-40:]))
    word = click.style("passed", fg="green") if passed else click.style("failed", fg="red")
    click.echo(f"boot test {word}: {report.ended} after {report.duration_s:.1f} s", err=True)
    for text in report.missing:
        click.echo(f"  never seen: {text}", err=True)
    return 0 if passed else 1
