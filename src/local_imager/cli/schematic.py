"""``local-imager schematic``: ID, canonical text, differences, template and schema.

Every command reads ``-`` as standard input.
"""

from __future__ import annotations

import click

from local_imager.cli.lint import lint


@click.group()
def schematic() -> None:
    """Work with schematics: id, canonical text, lint, diff, template, JSON Schema."""


schematic.add_command(lint)


@schematic.command("id")
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of file and ID.")
def print_id(files: tuple[str, ...], as_json: bool) -> None:
    """Print the ID that the Image Factory gives each schematic."""
    from local_imager.schematic.canonical import schematic_id
    from local_imager.schematic.parse import read_schematic

    rows = [
        {"file": file, "schematic_id": str(schematic_id(read_schematic(file)))} for file in files
    ]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        name = f"  {row['file']}" if len(rows) > 1 else ""
        click.echo(f"{row['schematic_id']}{name}")


@schematic.command()
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the ID and the text as JSON.")
def canonical(file: str, as_json: bool) -> None:
    """Print the canonical text: the one whose SHA-256 is the ID. It shows all secrets."""
    from local_imager.schematic.canonical import canonical_text, schematic_id
    from local_imager.schematic.parse import read_schematic

    value = read_schematic(file)
    text = canonical_text(value)
    if as_json:
        _print_json({"schematic_id": str(schematic_id(value)), "canonical": text})
    else:
        # As bytes: the text is hashed as UTF-8, whatever the locale and the platform.
        click.echo(text.encode(), nl=False)


@schematic.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option("--show-secrets", is_flag=True, help="Show values that may be secrets.")
@click.pass_context
def diff(
    context: click.Context, first: str, second: str, as_json: bool, show_secrets: bool
) -> None:
    """Say in plain words what differs between two schematics and why their IDs differ.

    The exit code is 4 when the IDs differ.
    """
    from local_imager.errors import ExitCode, InputError
    from local_imager.schematic.canonical import schematic_id
    from local_imager.schematic.diff import diff_schematics
    from local_imager.schematic.parse import read_schematic

    if first == second == "-":
        raise InputError("only one of the two schematics can come from standard input")
    values = [read_schematic(file) for file in (first, second)]
    first_id, second_id = (schematic_id(value) for value in values)
    found = diff_schematics(*values, show_secrets=show_secrets)
    if as_json:
        _print_json(
            {
                "equal": first_id == second_id,
                "first": {"file": first, "schematic_id": str(first_id)},
                "second": {"file": second, "schematic_id": str(second_id)},
                "differences": [difference.as_dict() for difference in found],
            }
        )
    elif first_id == second_id:
        click.echo(f"The schematics are equal: both have the ID {first_id}.")
        click.echo("Comments, quotes, the order of keys and YAML or JSON do not change the ID.")
    else:
        click.echo("The IDs differ, because the ID is the hash of what a schematic says:")
        click.echo(f"  {first_id}  {first}")
        click.echo(f"  {second_id}  {second}")
        click.echo("From the first to the second:")
        for difference in found:
            click.echo(f"  {difference.text}")
    context.exit(ExitCode.OK if first_id == second_id else ExitCode.COMPARISON_DIFFERS)


@schematic.command()
@click.option("-o", "--output", metavar="FILE", help="Write to this file, not to standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def init(output: str | None, force: bool) -> None:
    """Print a commented template: as it stands, the vanilla schematic."""
    from local_imager.schematic.template import TEMPLATE

    _deliver(TEMPLATE, output, force)


@schematic.command("json-schema")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, not to standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def print_json_schema(output: str | None, force: bool) -> None:
    """Print the JSON Schema of schematics, for editors.

    With the YAML language server, put this line first in a schematic:

    \b
    # yaml-language-server: $schema=schematic.schema.json
    """
    from local_imager.schematic.json_schema import json_schema_text

    _deliver(json_schema_text(), output, force)


def _deliver(text: str, output: str | None, force: bool) -> None:
    """Write the text to a new file, or to standard output."""
    if output is None or output == "-":
        click.echo(text.encode(), nl=False)
        return
    from local_imager.errors import InputError

    try:
        with open(output, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{output} exists already", hint="choose another name, or add --force to replace it"
        ) from None
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"wrote {output}", err=True)


def _print_json(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
