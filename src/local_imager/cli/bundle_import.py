"""``local-imager bundle import``: verify bundles and bring them into the store, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.cli.policyflags import bundle_policy
from local_imager.cli.sizes import counted, human_size
from local_imager.errors import ExitCode, NotFound
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.bundle.far.completing import Outcome
    from local_imager.deliver.bundle.far.importing import Imported
    from local_imager.deliver.bundle.far.report import FileReport, ImportReport
    from local_imager.deliver.bundle.far.reportfiles import ReportFiles
    from local_imager.deliver.bundle.form.signing import SigningKey
    from local_imager.store.store import Store

# A person reads a screen of faults; the report has them all.
_SHOWN_FAULTS: Final = 40
_SHOWN_ITEMS: Final = 3
_WRITES_OUT: Final = "--documents DIR writes them out"
_OPEN: Final = frozenset({"waiting", "lacking", "faulty", "kept-back"})
_WORDS: Final = {
    "imported": ("imported", "green"),
    "ready": ("ready", "green"),
    "written": ("written", "green"),
    "refused": ("REFUSED", "red"),
    "waiting": ("waits", "yellow"),
    "lacking": ("LACKS", "red"),
    "faulty": ("DAMAGED", "red"),
    "kept-back": ("kept back", "yellow"),
}


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--key", metavar="PEM", help="Demand a bundle signature of this public key.")
@click.option(
    "--signature",
    metavar="FILE",
    help="The signature file, if it is not NAME.tar.sigstore.json beside the bundle.",
)
@click.option("--partial", is_flag=True, help="In spite of faults, take what no fault touches.")
@click.option(
    "--allow-unsigned-assets",
    is_flag=True,
    help="Take assets and documents though nobody vouches for the bundle.",
)
@click.option("--documents", metavar="DIR", help="Write lock, schematics, policy and keys to DIR.")
@click.option("--force", is_flag=True, help="Let --documents replace files of another content.")
@click.option(
    "--keep-root", is_flag=True, help="Let the bundle's trusted root count here from now on."
)
@click.option("--report", metavar="DIR", help="Where the report goes (reports/ in the output).")
@click.option("--sign-key", metavar="KEY", help="Sign the report with this private key (PEM).")
@click.option("--dry-run", is_flag=True, help="Verify all and tell what would happen; no writing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def import_(ctx: click.Context, /, **given: Any) -> None:
    """Verify bundles and bring what the policy accepts into the store; no network takes part.

    FILE... are bundles or the parts of a set, in any order, all at once or one by one as they
    arrive; `-` is standard input. Nothing becomes visible before the files were read to their end
    without a fault, and then each image as a whole. An import that was stopped goes on where it
    was. Exits 0 when all is well (parts may be missing yet), 3 when something was refused or
    damaged, 5 when the disk is too small.
    """
    from local_imager.deliver.bundle.far.importing import Handout, import_files
    from local_imager.deliver.bundle.far.intake import Wishes

    app: App = ctx.obj
    policy = bundle_policy(app, given["key"])
    wishes = Wishes(
        policy,
        partial=given["partial"],
        unsigned_assets=given["allow_unsigned_assets"],
        documents=given["documents"] is not None,
        dry_run=given["dry_run"],
    )
    handout = Handout(
        Path(given["documents"]) if given["documents"] is not None else None,
        force=given["force"],
        keep_root=given["keep_root"],
    )
    signing_key = _signing_key(app, given["sign_key"])
    done = import_files(
        given["files"],
        _store(app, dry_run=wishes.dry_run),
        wishes,
        app.sink,
        signature=Path(given["signature"]) if given["signature"] is not None else None,
        handout=handout,
    )
    written = _reports(app, done, given["report"], signing_key, dry_run=wishes.dry_run)
    if given["as_json"]:
        click.echo(json.dumps(_document(done, written), indent=2, ensure_ascii=False))
    else:
        for line in _lines(done, written):
            click.echo(line)
    ctx.exit(_exit_code(done))


def _signing_key(app: App, path: str | None) -> SigningKey | None:
    """Open the key before an hour of reading, not after it."""
    from local_imager.cli.passphrase import passphrase_for
    from local_imager.deliver.bundle.form.signing import load_private_key

    if path is None:
        return None
    return load_private_key(Path(path), passphrase_for(Path(path)), app.sink)


def _store(app: App, *, dry_run: bool) -> Store | None:
    """A dry run makes no store."""
    from local_imager.store.store import Store

    if not dry_run:
        return app.store()
    try:
        return Store.open(app.settings.store, create=False)
    except NotFound:
        return None


def _reports(
    app: App, done: Imported, folder: str | None, key: SigningKey | None, *, dry_run: bool
) -> list[ReportFiles | None]:
    """Write the reports; those of a dry run only where a person names the folder."""
    from local_imager.deliver.bundle.far.reportfiles import write_report

    if dry_run and folder is None:
        return [None for _ in done.reports]
    place = Path(folder) if folder is not None else app.settings.out / "reports"
    return [write_report(report, place, human_size, key) for report in done.reports]


def _document(done: Imported, written: Sequence[ReportFiles | None]) -> dict[str, Any]:
    return {
        "imports": [
            {**report.as_dict(), "report": files.as_dict() if files is not None else None}
            for report, files in zip(done.reports, written, strict=True)
        ],
        "unknown_files": [file.as_dict() for file in done.unknown],
    }


def _exit_code(done: Imported) -> ExitCode:
    codes = [report.exit_code for report in done.reports]
    if done.unknown or ExitCode.VERIFICATION_REFUSED in codes:
        return ExitCode.VERIFICATION_REFUSED
    return max(codes, default=ExitCode.OK)


def _lines(done: Imported, written: Sequence[ReportFiles | None]) -> Iterator[str]:
    for file in done.unknown:
        yield from _file(file)
        yield "  it does not say of which bundle it is; copy it once more"
    for report, files in zip(done.reports, written, strict=True):
        yield from _report(report)
        if files is not None:
            yield f"report  {files.page}"
            yield f"        {files.json}"
            yield f"        SHA-256 {files.digest.hex}"
            if files.signature is not None:
                yield f"        signature {files.signature}"


def _report(report: ImportReport) -> Iterator[str]:
    signed = report.signed_by
    yield f"bundle  {report.set_digest}"
    if signed is not None:
        yield f"signed  by {_shown(str(signed['signer']))}, as the rule {signed['policy']} wants"
    else:
        yield f"signed  {click.style(_shown(report.unvouched), fg='yellow')}"
    for file in report.files:
        yield from _file(file)
    for outcome in report.outcomes:
        if report.state_of(outcome) not in ("present", "carried"):
            yield from _outcome(report, outcome)
    yield from _present(report)
    yield from _carried(report)
    if len(report.parts) > 1:
        yield from _missing(report)
    for problem in report.problems:
        yield click.style("not done: ", fg="red") + problem.message
        if problem.hint:
            yield f"          {problem.hint}"
    yield _summary(report)
    yield from _advice(report)


def _present(report: ImportReport) -> Iterator[str]:
    """Nobody reads a hundred names of what was there before; the report has them."""
    from local_imager.deliver.bundle.form.words import short_name

    found = [one for one in report.outcomes if report.state_of(one) == "present"]
    if len(found) == sum(report.counts.values()) > 0:
        yield "present    all its images and assets, in the store under their names"
    elif len(found) == 1:
        name = _shown(short_name(found[0].item.name))
        yield f"present    {name}, in the store under this name"
    elif found:
        yield f"present    {len(found)} images and assets, in the store under their names"


def _carried(report: ImportReport) -> Iterator[str]:
    found = [one for one in report.outcomes if report.state_of(one) == "carried"]
    for message in dict.fromkeys(one.message for one in found):
        names = ", ".join(_shown(one.item.name) for one in found if one.message == message)
        why = "nobody vouches for them" if message == report.unvouched else _shown(message)
        yield f"carried    {names}"
        yield f"           ({f'not written out: {why}' if message else _WRITES_OUT})"


def _file(file: FileReport) -> Iterator[str]:
    total = len(file.faults) + file.more_faults
    if not total:
        return
    part = f" (part {file.part} of {file.parts})" if file.parts > 1 else ""
    word = click.style("DAMAGED", fg="red", bold=True)
    yield f"{word}  {_shown(file.name)}{part}: {counted(total, 'fault')}"
    for fault in file.faults[:_SHOWN_FAULTS]:
        where = f" {_shown(fault.member)}:" if fault.member else ""
        yield f"  {click.style(fault.kind, fg='yellow')}{where} {_shown(fault.text)}"
        if fault.affects:
            yield f"      affects {_items(fault.affects)}"
    if total > _SHOWN_FAULTS:
        yield f"  … and {total - _SHOWN_FAULTS} more; `bundle verify` and the report name them"


def _outcome(report: ImportReport, one: Outcome) -> Iterator[str]:
    from local_imager.deliver.bundle.form.words import short_name

    state = report.state_of(one)
    word, colour = _WORDS[state]
    styled, name = click.style(f"{word:<9}", fg=colour), _shown(short_name(one.item.name))
    yield f"{styled}  {name}  {human_size(one.size_bytes)}{_signer(one)}"
    if one.replaces:
        yield click.style(f"           was {_shown(one.replaces)} before", fg="yellow")
    if state == "waiting":
        yield f"           for {_numbers(one.parts)} of {len(report.parts)}"
    elif one.code:  # what a fault touches is said with the fault
        yield f"           {one.code}: {_shown(one.message)}"
        if one.hint:
            yield f"           {_shown(one.hint)}"
    for line in one.tried:
        yield f"             {_shown(line)}"


def _signer(one: Outcome) -> str:
    from local_imager.deliver.bundle.form.words import short_signer

    if one.unverified:
        return click.style("  NOT VERIFIED", fg="red")
    return f"  {_shown(short_signer(one.signer))}" if one.signer else ""


def _missing(report: ImportReport) -> Iterator[str]:
    waiting = {one.item.name for one in report.outcomes if one.state in _OPEN}
    for part in report.parts:
        if part.state == "missing":
            held = _items([name for name in part.items if name in waiting])
            yield f"missing    part {part.number} of {len(report.parts)}, with blobs of {held}"


def _summary(report: ImportReport) -> str:
    from local_imager.deliver.bundle.far.page import verdict_text

    return click.style(verdict_text(report), bold=True)


def _advice(report: ImportReport) -> Iterator[str]:
    """Say what it means and what to do, most pressing first."""
    states = set(report.counts)
    kept = "" if report.dry_run else "What came intact is kept; the next import does not copy it. "
    if report.faults:
        if "kept-back" in states:
            yield (
                "Because of the faults nothing new became visible. --partial takes at once what "
                "no fault touches."
            )
        yield f"{kept}Copy the damaged files once more and import them again."
    elif states & {"faulty", "lacking"}:
        yield f"{kept}What to do about the others is said at each."
    elif "waiting" in states:
        yield f"{kept}Import the other parts as they arrive, in any order."
    if "refused" in states:
        yield (
            "What was refused is not in the store. If it should be, ask who made the bundle, or "
            "change this site's own policy ([[trust]] entries), and import again."
        )


def _numbers(numbers: Sequence[int]) -> str:
    word = "part" if len(numbers) == 1 else "parts"
    return f"{word} {', '.join(map(str, numbers))}"


def _items(names: Sequence[str]) -> str:
    from local_imager.deliver.bundle.form.words import short_name

    shown = ", ".join(_shown(short_name(name)) for name in names[:_SHOWN_ITEMS])
    more = len(names) - _SHOWN_ITEMS
    return f"{shown} and {more} more" if more > 0 else shown


def _shown(untrusted_text: str) -> str:
    return printable(untrusted_text, limit=300)
