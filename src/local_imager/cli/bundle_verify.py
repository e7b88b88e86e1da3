"""``local-imager bundle verify``: is a file what its maker wrote, and who says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from local_imager.cli.policyflags import bundle_policy
from local_imager.cli.sizes import human_size
from local_imager.errors import ExitCode
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.bundle.reading.faults import Fault
    from local_imager.deliver.bundle.reading.verifying import (
        MissingPart,
        Verification,
        VerifiedFile,
        VerifiedSet,
    )

# A person reads a screen of faults; --json has them all.
_SHOWN_FAULTS: Final = 40
_SHOWN_ITEMS: Final = 3
# What a medium or a transfer does to a file; the other kinds are somebody's doing.
_BY_ACCIDENT: Final = frozenset(
    {"bit-flip", "truncated", "header", "padding", "compression", "label", "manifest", "missing"}
)


@click.command("verify")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--key", metavar="PEM", help="Demand a signature of this public key.")
@click.option(
    "--signature",
    metavar="FILE",
    help="The signature file, if it is not NAME.tar.sigstore.json beside the bundle.",
)
@click.option(
    "--incomplete",
    is_flag=True,
    help="Check only the parts that are here; the others of the set may be missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    key: str | None,
    signature: str | None,
    incomplete: bool,
    as_json: bool,
) -> None:
    """Read every FILE once and name each fault; `-` is standard input.

    Needs no store and no network, and writes nothing. Parts of a set may be given in any order;
    the set is complete when an intact file of every part was given. A signature is demanded where
    the policy has a rule for bundles, or --key names who signs. Exits 0 when all is well, 3 when
    there is a fault or the signature is refused, 2 when there is no bundle to look at.
    """
    from local_imager.deliver.bundle.reading.verifying import verify_files

    app: App = ctx.obj
    policy = bundle_policy(app, key)
    place = Path(signature) if signature is not None else None
    found = verify_files(files, policy, app.sink, signature=place)
    good = found.good(incomplete=incomplete)
    if as_json:
        click.echo(json.dumps(found.as_dict(incomplete=incomplete), indent=2))
    else:
        for line in _lines(found, incomplete):
            click.echo(line)
    if not good:
        ctx.exit(ExitCode.VERIFICATION_REFUSED)


def _lines(found: Verification, incomplete: bool) -> Iterator[str]:
    if found.mixed:
        yield _red("mixed") + f"  these files are of {len(found.sets)} different bundles:"
        for one in found.sets:
            yield f"  {one.identity.short}  {', '.join(_shown(file.path) for file in one.files)}"
        yield ""
    for one in found.sets:
        yield from _set(one, incomplete)
    for file in found.files:
        if file.no_bundle is not None or file.identity is None:
            yield from _file(file)
    yield from _advice(found, incomplete)


def _set(one: VerifiedSet, incomplete: bool) -> Iterator[str]:
    for file in one.files:
        yield from _file(file)
    count = len(one.bundle.parts)
    if count > 1:
        for part in one.missing:
            yield from _missing(part, count, incomplete)
        for number in one.duplicates:
            yield f"  part {number} was given more than once; one intact file of it is enough"
        if one.complete:
            yield _green("complete") + f"  all {count} parts of the set are here and intact"
    yield f"  {'identity':<10} {one.identity}"
    yield f"  {'holds':<10} {_holds(one)}"
    if one.refusal is not None:
        yield f"  {_red('REFUSED   ')} {one.refusal.message}"
    elif one.signed_by is not None:
        kind = "key " if one.signed_by.signer.startswith("sha256:") else ""
        yield f"  {'signed by':<10} {kind}{printable(one.signed_by.signer)}"
        yield f"  {'policy':<10} {printable(one.signed_by.rule)}"
    else:
        yield from _unsigned(one)
    yield ""


def _unsigned(one: VerifiedSet) -> Iterator[str]:
    why = "there is a signature, but it was not judged" if one.signed else "not signed"
    yield f"  {'signed by':<10} nobody ({why})"
    yield f"  {'':<10} {printable(one.note)}"


def _holds(one: VerifiedSet) -> str:
    from local_imager.deliver.bundle.reading.verifying import carried_bytes

    kinds = Counter(item.kind for item in one.bundle.items)
    parts = [_count(kinds[kind], kind) for kind in ("image", "asset", "document") if kinds[kind]]
    size = human_size(carried_bytes(one.bundle))
    delta = "; a delta, of use only where the rest is" if one.bundle.since is not None else ""
    return f"{', '.join(parts) or 'nothing'}: {size}{delta}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _file(file: VerifiedFile) -> Iterator[str]:
    name = _shown(file.path)
    if file.label is not None and file.label.count > 1:
        name += f" (part {file.label.number} of {file.label.count})"
    if file.no_bundle is not None:
        yield f"{_red('no bundle')}  {file.no_bundle.message}"
        return
    if file.intact:
        yield f"{_green('intact')}  {name}"
        return
    total = len(file.faults) + file.more_faults
    yield f"{_red('FAULTY')}  {name}: {_count(total, 'fault')}"
    for fault in file.faults[:_SHOWN_FAULTS]:
        yield from _fault(fault)
    if total > _SHOWN_FAULTS:
        yield f"  … and {total - _SHOWN_FAULTS} more (--json lists up to {len(file.faults)})"


def _fault(fault: Fault) -> Iterator[str]:
    where = f" {_short(fault.member)}:" if fault.member else ""
    yield f"  {click.style(fault.kind, fg='yellow')}{where} {fault.text}"
    if fault.affects:
        yield f"      affects {_items(fault.affects)}"


def _missing(part: MissingPart, count: int, incomplete: bool) -> Iterator[str]:
    if part.damaged:
        return
    word = "not given" if incomplete else _red("MISSING")
    yield f"{word}  part {part.number} of {count}; it holds parts of {_items(part.items)}"


def _advice(found: Verification, incomplete: bool) -> Iterator[str]:
    """Say what to do, most pressing first."""
    kinds = {fault.kind for file in found.files for fault in file.faults}
    if kinds - _BY_ACCIDENT:
        yield (
            "local-imager never writes such a file: another program packed it anew, or somebody "
            "changed it. Ask who made it before you import anything of it."
        )
    if kinds & _BY_ACCIDENT:
        yield (
            "Copy what is damaged once more and verify again; if the same faults come back, the "
            "medium or the file on the near side is damaged: carry it over anew."
        )
    usable = sum(one.unharmed for one in found.sets if one.refusal is None and not one.complete)
    if kinds and usable and not kinds - _BY_ACCIDENT:
        yield (
            f"`bundle import --partial` takes the {_count(usable, 'item')} that no fault touches; "
            "the others have to wait."
        )
    absent = [part for one in found.sets for part in one.missing if not part.damaged]
    if absent and not incomplete:
        yield (
            "Bring the missing parts, or verify what is here by itself with --incomplete; "
            "`bundle import` takes parts one by one as they arrive."
        )
    if any(file.no_bundle is not None for file in found.files):
        yield "Name bundles and their parts only; a signature beside them is found by itself."
    hints = dict.fromkeys(one.refusal.hint for one in found.sets if one.refusal is not None)
    yield from (f"To have the signature accepted: {hint}." for hint in hints if hint)


def _items(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:_SHOWN_ITEMS])
    more = len(names) - _SHOWN_ITEMS
    return f"{shown} and {more} more" if more > 0 else shown


def _short(member: str) -> str:
    """Twelve digits of a digest are enough to compare."""
    folder, slash, name = member.rpartition("/")
    is_digest = len(name) == 64 and folder.endswith("sha256")
    return f"{folder}{slash}{name[:12]}…" if is_digest else member


def _shown(untrusted_text: str) -> str:
    return printable(untrusted_text, limit=200)


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True)


def _green(text: str) -> str:
    return click.style(text, fg="green")
