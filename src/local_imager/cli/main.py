"""The ``local-imager`` command: lazy groups, global options and the error boundary.

A command's module is imported only when that command runs, so ``--help`` and the light commands
stay quick. Every :class:`LocalImagerError` ends here as text (or JSON) and an exit code.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

import click

from local_imager import __version__
from local_imager.errors import ExitCode, InputError, Interrupted, LocalImagerError
from local_imager.events import printable, printable_lines

if TYPE_CHECKING:
    from local_imager.cli.progress import Style

# name -> (module:attribute, help line). The line is repeated here so that --help imports nothing.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "build": ("build:build", "Build assets of a schematic and export them."),
    "plan": ("plan:plan", "Show what a build would do; needs no engine."),
    "lock": ("lock:lock", "Pin every source image by digest; build --locked holds to it."),
    "schematic": ("schematic:schematic", "Work with schematics: id, lint, diff, init, …"),
    "sources": ("sources:sources", "Fetch, list and verify source images."),
    "inspect": ("inspect:inspect", "Say what a boot file is: version, schematic, extensions, …"),
    "verify": ("verify:verify", "Verify one image, and show every signature found."),
    "verify-blob": ("verify:verify_blob", "Verify a file against a Sigstore bundle."),
    "trust": ("trust:trust", "Show the trusted root and policy in force; refresh the root."),
    "versions": ("sources:versions", "List the Talos versions that can be built."),
    "extensions": ("sources:extensions", "List a version's official extensions."),
    "overlays": ("sources:overlays", "List a version's overlays."),
    "bundle": ("bundle:bundle", "Carry images and assets over an air gap in a verified file."),
    "store": ("store:store", "Look into and clean the content-addressed store."),
    "secureboot": ("secureboot:secureboot", "Make secure boot signing keys."),
    "compare": ("compare:compare", "Say whether two files are the same, and where they are not."),
    "boot-test": ("boot:boot_test", "Boot a built file in QEMU and read its console."),
    "doctor": ("doctor:doctor", "Say what this host can and cannot do."),
}


_COLLECT_AFTER: Final = 50_000  # objects; Python's own is 700


class LazyGroup(click.Group):
    """A group whose commands, those of ``table``, are imported when they are used."""

    table: ClassVar[Mapping[str, tuple[str, str]]] = COMMANDS
    help_command: ClassVar[str] = "local-imager --help"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which follows the user's way of work."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None when there is no such name."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"local_imager.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when one is mistyped."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.table:
            hint = nearest_hint(name, self.table, f"{self.help_command} lists all")
            raise InputError(f"there is no command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)


def nearest_hint(name: str, known: Any, fallback: str = "local-imager --help lists all") -> str:
    """Return ``did you mean …?`` for the nearest known names, else the fallback."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {', '.join(close)}?" if close else fallback


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 input invalid, 3 verification refused, "
    "4 comparison differs, 5 engine or host not able, 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.option("--config", metavar="FILE", help="Use this settings file in place of your own.")
@click.option(
    "--policy", metavar="FILE", multiple=True, help="Trust the [[trust]] entries of this file too."
)
@click.option("--store", metavar="DIR", help="Use the store in this directory.")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.option("-v", "--verbose", is_flag=True, help="Show the imager's own log lines too.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress (--progress none).")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "json", "none"]),
    default="auto",
    help="How progress is written to stderr.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    config: str | None,
    policy: tuple[str, ...],
    store: str | None,
    debug: bool,
    verbose: bool,
    quiet: bool,
    progress: Style,
) -> None:
    """Build Talos Linux images on your own machine, offline, equal to the Image Factory's."""
    from local_imager.cli.context import App

    style: Style = "none" if quiet else progress
    flags: dict[str, object] = {"store": store}
    ctx.obj = App(config, policies=policy, flags=flags, progress=style, verbose=verbose)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code that the outcome asks for.

    SIGTERM and SIGHUP end a run as Ctrl-C does: what was started is stopped and cleaned up.
    """
    # Most of what a run makes lives to its end; looking through it again and again takes longer
    # than all of a short command's own work.
    gc.set_threshold(_COLLECT_AFTER)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
            signal.signal(number, signal.default_int_handler)
    arguments = sys.argv[1:] if argv is None else argv
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code; exceptions leave it only with ``--debug``.

    With ``--json`` standard output is one document, also when the command line is wrong or the run
    is interrupted: ``{"error": …}``.
    """
    before_command = arguments[: next((i for i, a in enumerate(arguments) if a in COMMANDS), None)]
    debug, as_json = "--debug" in before_command, "--json" in arguments
    try:
        return _called(arguments)
    except click.UsageError as error:
        if debug:
            raise
        if as_json:
            report(_misused(error), as_json=True)
        else:
            error.show()
        return ExitCode.INPUT_INVALID
    except (click.Abort, KeyboardInterrupt):
        text = "interrupted; what was started is stopped and cleaned up"
        if as_json:
            report(Interrupted(text), as_json=True)
        else:
            click.echo(text, err=True)
        return ExitCode.INTERRUPTED
    except Exception as error:  # the last line of defence: no traceback unless asked for
        if debug:
            raise
        fault = _output_fault() if isinstance(error, OSError) else None
        if isinstance(fault, BrokenPipeError):  # the reader of our output went away
            return ExitCode.FAILED
        found = explained(error) if fault is None else from_os_error(fault, "standard output")
        report(found, as_json=as_json and fault is None)
        return found.exit_code


def _called(arguments: list[str]) -> int:
    """Call the command; raises OSError too for output that was not written before the end."""
    try:
        result = cli.main(args=arguments, prog_name="local-imager", standalone_mode=False)
        code = result if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Exit as exit_request:
        code = exit_request.exit_code
    if sys.stdout is not None:  # as it is when a shell closed it
        sys.stdout.flush()
    return code


def _misused(error: click.UsageError) -> InputError:
    """Return what click says of a wrong command line as one of our errors."""
    command = error.ctx.command_path if error.ctx is not None else "local-imager"
    return InputError(error.format_message(), hint=f"see `{command} --help`", code="usage")


def _output_fault() -> OSError | None:
    """Return why standard output takes nothing more, None when it does.

    What could not be written is given up: the interpreter would try again at its end.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as fault:
        with contextlib.suppress(OSError):  # not a file, in a test
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        return fault
    return None


def explained(error: Exception) -> LocalImagerError:
    """Turn what no layer below explained into one of our errors; others stay as they are."""
    if isinstance(error, LocalImagerError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    text = printable(f"{type(error).__name__}: {error}", limit=500)
    hint = "this is a defect: please report it with what --debug shows (look for secrets first)"
    return LocalImagerError(f"an unexpected error: {text}", hint=hint, code="internal")


def from_os_error(error: OSError, place: object = None) -> LocalImagerError:
    """Turn an operating system fault that no layer below explained into one of our errors."""
    from local_imager.oci.durable import fault

    where = place or error.filename
    explained = fault(error, f"{error.strerror or error}{f' ({where})' if where else ''}")
    explained.hint = explained.hint or "run again with --debug"
    return explained


def report(error: LocalImagerError, *, as_json: bool) -> None:
    """Print an error for a person on stderr; with ``--json`` as an object on stdout instead.

    What standard output does not take goes to stderr as well.
    """
    if as_json:
        import json

        try:
            click.echo(json.dumps({"error": error.as_dict()}, indent=2))
            return
        except OSError:
            _output_fault()
    location = error.location if isinstance(error, InputError) else ""
    place = f"{printable(location)}: " if location else ""
    click.echo(
        click.style("error: ", fg="red", bold=True) + place + printable_lines(error.message),
        err=True,
    )
    if error.hint:
        click.echo(click.style("hint:  ", fg="cyan") + printable_lines(error.hint), err=True)
