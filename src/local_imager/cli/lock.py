"""``local-imager lock``, ``lock diff``, and the option ``--locked`` of ``build`` and ``plan``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.errors import ExitCode, InputError

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.pipeline.lockdiff import Change
    from local_imager.pipeline.lockfile import Lock, LockFile
    from local_imager.pipeline.locking import LockOrder

DEFAULT_FILE: Final = "local-imager.lock"


class LockedCommand(click.Command):
    """A command whose ``--locked`` may stand alone or as ``--locked=FILE``.

    The next argument never is its value: it would swallow the schematic.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell out the default file."""
        end = args.index("--") if "--" in args else len(args)
        full = [f"--locked={DEFAULT_FILE}" if a == "--locked" else a for a in args[:end]]
        return super().parse_args(ctx, full + args[end:])


locked_option = click.option(
    "--locked",
    metavar="[=FILE]",
    help=f"Use exactly the images of this lock (default file: {DEFAULT_FILE}).",
)


def read_locked(locked: str | None) -> LockFile | None:
    """Return the lock that ``--locked`` names, None without the option; raises InputError."""
    if locked is None:
        return None
    from local_imager.pipeline.lockread import read_lock

    return read_lock(Path(locked))


class _LockCommand(click.Command):
    """``lock`` makes a lock; ``lock diff`` is another command behind the same word."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Hand over to ``diff`` when that is the first argument (a file of that name: ./diff)."""
        if args and args[0] == "diff":
            return diff.make_context(f"{info_name} diff", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(
    "lock", cls=_LockCommand, epilog="`local-imager lock diff A B` says what two locks differ in."
)
@click.argument("schematics", nargs=-1, metavar="[SCHEMATIC]...")
@click.option(
    "--version", "versions", multiple=True, metavar="V", help="Talos version; may be given again."
)
@click.option(
    "--arch",
    "arches",
    type=click.Choice(["amd64", "arm64"]),
    multiple=True,
    help="Architecture of the images to build; may be given again (default: this host's).",
)
@click.option("--matrix", metavar="FILE", help="Lock what `build --matrix FILE` builds.")
@click.option("-o", "--output", metavar="FILE", default=DEFAULT_FILE, show_default=True)
@click.option("--update", is_flag=True, help="Resolve everything anew and say what changed.")
@click.option("--check", is_flag=True, help="Write nothing; exit 4 when upstream has moved on.")
@click.option("--builder", metavar="V|newest|same", help="Which imager is to run.")
@click.option("--from", "source", metavar="PLACE", help="Read images from this layout or registry.")
@click.option("--offline", is_flag=True, help="Lock what the store holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def lock(
    ctx: click.Context,
    /,
    schematics: tuple[str, ...],
    versions: tuple[str, ...],
    arches: tuple[Any, ...],
    matrix: str | None,
    output: str,
    update: bool,
    check: bool,
    offline: bool,
    as_json: bool,
    **flags: object,
) -> None:
    """Write down the digest, signer and size of every image that SCHEMATICs are built from.

    Where the file is there already, what is not given is taken from it, and digests in it stay
    as they are: --update asks anew, and --check only looks.
    """
    if update and check:
        raise click.UsageError("--check writes nothing, --update does: give one of them")
    if matrix is not None:
        if schematics or versions or arches:
            raise click.UsageError("--matrix says the schematics, versions and architectures")
        schematics, versions, arches = _asked_by(Path(matrix))
    path = Path(output)
    old = _existing(path, needed=check)
    app: App = ctx.obj.with_flags(flags)
    keep = None if update or check else old
    order = _order(path, old, keep, schematics, versions, arches, offline)
    new = app.factory.lock(order)
    from local_imager.pipeline.lockdiff import changes

    found = changes(old, new) if old is not None else ()
    if check:
        _report_check(path, found, as_json)
        if any(change.matters for change in found):
            ctx.exit(ExitCode.COMPARISON_DIFFERS)
        return
    from local_imager.pipeline.lockfile import write_lock

    _report_written(write_lock(path, new), old, found, as_json)


def _asked_by(matrix: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Any, ...]]:
    """Return the schematics, versions and architectures of a matrix, each once."""
    from local_imager.oci.host import host_arch
    from local_imager.pipeline.matrixfile import read_matrix

    cells = read_matrix(matrix, default_arch=host_arch())
    files = dict.fromkeys(str(matrix.parent / cell.file) for cell in cells)
    versions = dict.fromkeys(cell.version for cell in cells)
    return tuple(files), tuple(versions), tuple(dict.fromkeys(cell.arch for cell in cells))


def _existing(path: Path, *, needed: bool) -> Lock | None:
    from local_imager.pipeline.lockread import read_lock

    return read_lock(path).lock if needed or path.exists() else None


def _order(
    path: Path,
    old: Lock | None,
    keep: Lock | None,
    schematics: Sequence[str],
    versions: Sequence[str],
    arches: Sequence[Any],
    offline: bool,
) -> LockOrder:
    """Return what is to be locked: as given, else as in the file that is there."""
    from local_imager.oci.host import host_arch
    from local_imager.pipeline.locking import LockOrder, file_in_lock
    from local_imager.profile.version import TalosVersion
    from local_imager.schematic.parse import read_schematic

    if schematics:
        files = {file_in_lock(name, path): name for name in schematics}
    else:
        files = {s.file: _seen_from_here(s.file, path) for s in old.schematics} if old else {}
    if not files:
        raise InputError(
            "it is not said which schematics to lock",
            hint=f"local-imager lock SCHEMATIC… --version V --arch amd64 -o {path}",
        )
    known = [entry.version for entry in old.versions] if old else []
    wanted = [TalosVersion.parse(text) for text in versions] or known
    if not wanted:
        raise InputError("it is not said which Talos version to lock", hint="give --version V")
    return LockOrder(
        schematics=tuple((file, read_schematic(name)) for file, name in files.items()),
        versions=tuple(wanted),
        arches=tuple(arches) or (old.arches if old else (host_arch(),)),
        keep=keep,
        offline=offline,
    )


def _seen_from_here(file: str, path: Path) -> str:
    if file == "-":
        raise InputError(
            "a schematic of this lock came from standard input, so it has to be given again",
            hint="name all schematics: local-imager lock SCHEMATIC… --update",
        )
    return str(path.parent / file)


def _report_check(path: Path, found: Sequence[Change], as_json: bool) -> None:
    drifted = any(change.matters for change in found)
    if as_json:
        _print_json({"file": str(path), "current": not drifted, "changes": _as_dicts(found)})
        return
    _print_changes(found)
    renew = "out of date: local-imager lock --update brings it up to date"
    click.echo(f"{path} is {renew if drifted else 'up to date'}")


def _report_written(
    file: LockFile, old: Lock | None, found: Sequence[Change], as_json: bool
) -> None:
    lock = file.lock
    signers = sorted({i.signer for entry in lock.versions for i in entry.images})
    if as_json:
        document = {"file": str(file.path), "digest": str(file.digest), "signers": signers}
        _print_json({**document, "images": lock.image_count, "changes": _as_dicts(found)})
        return
    _print_changes(found)
    if old is not None and not found:
        click.echo(f"{file.path} is as it was: nothing changed")
        return
    versions = ", ".join(str(entry.version) for entry in lock.versions)
    count = len(lock.schematics)
    click.echo(
        f"{file.path}: {count} schematic{'s' if count > 1 else ''}, Talos {versions}, "
        f"{lock.image_count} images signed by {', '.join(signers)}"
    )


@click.command("diff")
@click.argument("old", metavar="A", type=click.Path(dir_okay=False))
@click.argument("new", metavar="B", type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.pass_context
def diff(ctx: click.Context, old: str, new: str, as_json: bool) -> None:
    """Say in words what changed from lock A to lock B; exits 4 when they differ."""
    from local_imager.pipeline.lockdiff import changes
    from local_imager.pipeline.lockread import read_lock

    found = changes(read_lock(Path(old)).lock, read_lock(Path(new)).lock)
    if as_json:
        _print_json(_as_dicts(found))
    else:
        _print_changes(found)
        if not found:
            click.echo("the locks say the same")
    if found:
        ctx.exit(ExitCode.COMPARISON_DIFFERS)


def _as_dicts(found: Sequence[Change]) -> list[dict[str, object]]:
    return [change.as_dict() for change in found]


def _print_changes(found: Sequence[Change]) -> None:
    for change in found:
        click.echo(change.text if change.matters else f"{change.text} (of how it was made)")


def _print_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=2))
