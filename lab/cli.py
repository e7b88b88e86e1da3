"""Command line of the lab."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from lab.console import LabError, say, stop_programs
from lab.place import DEFAULT_VERSIONS, Place, find_place, parse_version


def main(argv: Sequence[str] | None = None) -> int:
    """Run a lab command and return its exit code."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    place = find_place()
    try:
        code: int = options.handler(place, options)
        return code
    except LabError as problem:
        print(f"lab: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        stop_programs()
        print("lab: interrupted; finished steps are kept", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build what is missing of the lab")
    build.add_argument(
        "--versions",
        default=os.environ.get("LAB_VERSIONS") or " ".join(DEFAULT_VERSIONS),
        help="Talos versions, separated by spaces (default: LAB_VERSIONS or %(default)s)",
    )
    build.add_argument(
        "--engines",
        action="store_true",
        help="also make the newer engines that `lab run --remote-engine --podman` starts",
    )
    build.add_argument(
        "--clean-image",
        action="store_true",
        help="also make the clean Debian that tests run documented pipelines in",
    )
    build.set_defaults(handler=_build)
    verify = commands.add_parser("verify", help="check every blob and every signature")
    verify.set_defaults(handler=_verify)
    status = commands.add_parser("status", help="what is built, what runs, what is missing")
    status.set_defaults(handler=_status)
    clean = commands.add_parser("clean", help="remove engine data, logs and leftovers")
    clean.add_argument("--all", action="store_true", help="remove the whole lab, keys included")
    clean.set_defaults(handler=_clean)
    run = commands.add_parser(
        "run",
        help="run a command with an engine or registry of the lab beside it",
        description="Start what is asked for, set LOCAL_IMAGER_LAB, DOCKER_HOST (only when an "
        "engine had to be started), LAB_REGISTRY, LAB_REMOTE_ENGINE and LAB_PODMAN, run the "
        "command, stop all of it, and exit with the command's code.",
    )
    run.add_argument("--engine", action="store_true", help="a Docker engine, if none answers")
    run.add_argument("--registry", action="store_true", help="a registry with the lab's images")
    run.add_argument(
        "--remote-engine",
        action="store_true",
        help="Docker 28 with the containerd image store over TCP, sharing no files",
    )
    run.add_argument("--podman", action="store_true", help="Podman's API socket")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")
    run.set_defaults(handler=_run)
    upstream = commands.add_parser("upstream", help="print which upstream a demo reads from")
    upstream.add_argument("asked", help="auto, official or lab")
    upstream.set_defaults(handler=_upstream)
    return parser


def _versions(text: str) -> list[str]:
    versions = text.replace(",", " ").split()
    if not versions:
        raise LabError("no version given")
    for version in versions:
        try:
            parse_version(version)
        except ValueError as problem:
            raise LabError(str(problem)) from problem
    return versions


def _build(place: Place, options: argparse.Namespace) -> int:
    from lab.build import build_lab
    from lab.sidengines import make_engines_root
    from lab.steps import build_lock

    with build_lock(place):
        if not build_lab(place, _versions(options.versions)):
            say(f"{place.root}: complete, nothing to do")
        if options.engines:
            make_engines_root(place)
    if options.clean_image:
        from lab.clean import clean_image

        say(f"{clean_image(place).name}: in {place.steps / 'clean'}")
    return 0


def _run(place: Place, options: argparse.Namespace) -> int:
    from lab.runner import Wanted, run_with

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    wanted = Wanted(options.engine, options.registry, options.remote_engine, options.podman)
    return run_with(place, wanted, command)


def _upstream(place: Place, options: argparse.Namespace) -> int:
    from lab.upstream import choose

    choice = choose(options.asked)
    say(f"upstream: {choice.name}, {choice.why}")
    print(choice.name)
    return 0


def _verify(place: Place, options: argparse.Namespace) -> int:
    from lab.verify import report, verify_lab

    findings = verify_lab(place)
    print(report(findings))
    return 0 if all(finding.sound for finding in findings) else 1


def _status(place: Place, options: argparse.Namespace) -> int:
    from lab.upkeep import status

    print(json.dumps(status(place), indent=1))
    return 0


def _clean(place: Place, options: argparse.Namespace) -> int:
    from lab.steps import build_lock
    from lab.upkeep import clean

    with build_lock(place):
        removed = clean(place, options.all)
    for path in removed:
        print(f"removed {path}")
    return 0
