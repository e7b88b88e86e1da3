"""``secureboot``: the signing keys of secure boot assets."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.group()
def secureboot() -> None:
    """Make secure boot signing keys."""


@secureboot.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--common-name", metavar="NAME", help="Name in the certificate that is enrolled.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def keygen(directory: Path, common_name: str | None, as_json: bool) -> None:
    """Make UKI and PCR signing keys in DIRECTORY; existing keys are never overwritten.

    Keep them safe and backed up: machines that enrolled the certificate boot nothing else. Use
    them with `build --secureboot-keys DIRECTORY`.
    """
    from local_imager.build.keygen import generate_secureboot_keys

    options = {"common_name": common_name} if common_name else {}
    keys = generate_secureboot_keys(directory, **options)
    if as_json:
        document = {
            "directory": str(keys.directory),
            "files": [path.name for path in keys.files],
            "certificate_sha256": keys.certificate_sha256,
        }
        click.echo(json.dumps(document, indent=2))
        return
    for path in keys.files:
        click.echo(path)
    click.echo(f"certificate SHA-256 {keys.certificate_sha256}", err=True)
