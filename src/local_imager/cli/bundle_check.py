"""``local-imager bundle check``: is a bundle enough for the builds that it is made for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.cli.build import complete_asset
from local_imager.cli.policyflags import bundle_policy
from local_imager.cli.sizes import human_size
from local_imager.errors import ExitCode
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.bundle.proof.check import Question
    from local_imager.deliver.bundle.proof.proofs import AssetProof, Completeness, Lack
    from local_imager.deliver.bundle.reading.verifying import VerifiedFile

_ARCH: Final = click.Choice(["amd64", "arm64"])
# A person reads a screen of faults; `bundle verify` is there for more.
_SHOWN_FAULTS: Final = 10
_SHOWN_NAMES: Final = 4


@click.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--version", "versions", multiple=True, metavar="V", help="Talos version to build.")
@click.option("--schematic", "schematics", multiple=True, metavar="F", help="Schematic to build.")
@click.option(
    "--asset",
    "assets",
    multiple=True,
    metavar="A",
    shell_complete=complete_asset,
    help="Asset to build (default: ISO, disk image and installer).",
)
@click.option(
    "--arch",
    "arches",
    multiple=True,
    type=_ARCH,
    help="Architecture of the machines that images are for.",
)
@click.option(
    "--host-arch",
    "hosts",
    multiple=True,
    type=_ARCH,
    help="Architecture of the far side's build host.",
)
@click.option("--have", metavar="FAR.JSON", help="What the far side has (store inventory).")
@click.option("--builder", metavar="V|newest|same", help="Which imager will run.")
@click.option("--key", metavar="PEM", help="Demand a signature of this public key.")
@click.option(
    "--signature",
    metavar="FILE",
    help="The signature file, if it is not NAME.tar.sigstore.json beside the bundle.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    key: str | None,
    signature: str | None,
    as_json: bool,
    builder: str | None,
    **asked: Any,
) -> None:
    """Prove before travel that FILE (all parts of a set) is enough to build without a network.

    Every byte is verified; then each asset is planned for each schematic and version from the
    bundle alone, as on a far side whose store is empty, and every image that the plan needs is
    looked for: there, whole, and accepted by the policy. What is not named is as the bundle was
    made for: its versions, schematics and architectures. Exits 0 when nothing is missing, 1 when
    something is, 3 when bytes are damaged or an image, lock or signature is refused.
    """
    from local_imager.deliver.bundle.proof.check import check_files

    app: App = ctx.obj.with_flags({"builder": builder})
    found = check_files(
        files,
        _question(**asked),
        app.settings,
        bundle_policy(app, key),
        app.sink,
        signature=Path(signature) if signature is not None else None,
    )
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        for line in _lines(found):
            click.echo(line)
    if found.refused:
        ctx.exit(ExitCode.VERIFICATION_REFUSED)
    if not found.complete:
        ctx.exit(ExitCode.FAILED)


def _question(
    versions: Sequence[str],
    schematics: Sequence[str],
    assets: Sequence[str],
    arches: Sequence[Any],
    hosts: Sequence[Any],
    have: str | None,
) -> Question:
    from local_imager.deliver.bundle.form.inventory import read_inventory
    from local_imager.deliver.bundle.proof.check import Question
    from local_imager.profile.assetname import AssetName
    from local_imager.profile.version import TalosVersion
    from local_imager.schematic.parse import read_schematic

    return Question(
        versions=tuple(dict.fromkeys(TalosVersion.parse(text) for text in versions)),
        schematics=tuple((path, read_schematic(path)) for path in dict.fromkeys(schematics)),
        assets=tuple(dict.fromkeys(AssetName.parse(text) for text in assets)),
        arches=tuple(dict.fromkeys(arches)),
        hosts=tuple(dict.fromkeys(hosts)),
        have=read_inventory(Path(have)) if have is not None else None,
    )


def _lines(found: Completeness) -> Iterator[str]:
    for file in found.damaged:
        yield from _damaged(file)
    for part in found.missing_parts:
        names = _names(part.items)
        yield f"{_red('MISSING')}   part {part.number} of {found.parts}; it holds parts of {names}"
    width = max((len(proof.asset) for proof in found.assets), default=0)
    hosts = len({proof.host for proof in found.assets})
    for proof in found.assets:
        yield _asset(proof, width) + (f"  on {proof.host}" if hosts > 1 else "")
    lacks = list(found.lacks())
    if lacks:
        yield ""
        yield "what is missing"
    for lack in lacks:
        yield from _lack(lack, [p.asset for p in found.assets if lack in p.lacks])
    remedies = dict.fromkeys(lack.remedy for lack in lacks if lack.remedy)
    if remedies:
        yield ""
        yield "what to do"
    yield from (f"  {printable(remedy)}" for remedy in remedies)
    yield ""
    yield from _circumstances(found)
    notes = [*found.notes, *(note for proof in found.assets for note in proof.notes)]
    for note in dict.fromkeys(notes):
        yield click.style("note: ", fg="yellow") + printable(note)


def _asset(proof: AssetProof, width: int) -> str:
    what = f"{proof.asset:<{width}}  {proof.version}  {printable(proof.schematic, limit=80)}"
    if not proof.complete:
        refused = any(lack.refused for lack in proof.lacks)
        return f"{_red('REFUSED' if refused else 'MISSING')}   {what}"
    images = len({image.name for image in proof.images})
    return f"{_green('complete')}  {what}  ({images} images, {human_size(proof.size_bytes)})"


def _lack(lack: Lack, assets: Sequence[str]) -> Iterator[str]:
    size = f" ({human_size(lack.size_bytes)})" if lack.size_bytes else ""
    name = f"{lack.role}  {lack.name}" if lack.role else lack.name
    yield f"  {printable(name, limit=300)}{size}"
    code = f"{lack.code}: " if lack.code else ""
    yield f"      {code}{printable(lack.text)}"
    yield f"      for {_names(assets)}"


def _damaged(file: VerifiedFile) -> Iterator[str]:
    total = len(file.faults) + file.more_faults
    yield f"{_red('FAULTY')}    {file.path}: {total} fault{'' if total == 1 else 's'}"
    for fault in file.faults[:_SHOWN_FAULTS]:
        member = f" {printable(fault.member)}:" if fault.member else ""
        yield f"  {click.style(fault.kind, fg='yellow')}{member} {printable(fault.text)}"
        if fault.affects:
            yield f"      affects {_names(fault.affects)}"
    if total > _SHOWN_FAULTS:
        yield f"  … and {total - _SHOWN_FAULTS} more: `bundle verify` names them"


def _circumstances(found: Completeness) -> Iterator[str]:
    """Say for what the answer holds."""
    if found.set_digest is None:
        yield "its manifest is damaged, so nothing can be said about builds: copy it once more"
        return
    have = "has what the inventory lists" if found.far_side else "has an empty store"
    if found.since is not None and found.far_side is None:
        have += " (the bundle is a delta: --have FILE says what is there)"
    yield f"  {'identity':<10} {found.set_digest}"
    hosts = " and on ".join(dict.fromkeys(proof.host for proof in found.assets))
    yield f"  {'far side':<10} {have}" + (f", and builds on {hosts}" if hosts else "")
    if found.lock:
        yield f"  {'lock':<10} builds are held to it, as with --locked"
    if found.signed_by is not None:
        signer, rule = printable(found.signed_by.signer), printable(found.signed_by.rule)
        yield f"  {'signed by':<10} {signer} ({rule})"
    else:
        why = "there is a signature, but it was not judged" if found.signed else "not signed"
        yield f"  {'signed by':<10} nobody ({why})"
        yield f"  {'':<10} {printable(found.unvouched)}"


def _names(names: Iterable[str]) -> str:
    every = [printable(name, limit=200) for name in dict.fromkeys(names)]
    more = len(every) - _SHOWN_NAMES
    shown = ", ".join(every[:_SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True)


def _green(text: str) -> str:
    return click.style(text, fg="green")
