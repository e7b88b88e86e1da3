"""What ``build --verify-reproducible`` does after the build, and how it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_imager.cli.context import App
    from local_imager.deliver.reproduce import Reproduction
    from local_imager.pipeline import BuildOrder, BuildResult


def verified(app: App, order: BuildOrder, results: Sequence[BuildResult]) -> Sequence[Reproduction]:
    """Build everything again in other surroundings and return what came of it."""
    from local_imager.deliver.reproduce import verify_reproducible

    return verify_reproducible(app.factory, order, results, sink=app.sink)


def with_answers(
    documents: Sequence[dict[str, Any]], answers: Sequence[Reproduction]
) -> list[dict[str, Any]]:
    """Return the results as ``--json`` shows them, each with its answer."""
    pairs = zip(documents, answers, strict=True)
    return [{**document, "reproducible": answer.as_dict()} for document, answer in pairs]


def print_answers(answers: Sequence[Reproduction]) -> None:
    """Say of every asset whether it repeats, and where it does not.

    What was varied for all stands once, above; what only some have is told with them.
    """
    from local_imager.deliver.reproduced import ONLY_THERE

    apart_s = min(answer.seconds_apart for answer in answers)
    click.echo(f"built again in other surroundings ({apart_s:.0f} s later or more)")
    common = [line for line in _told(answers[0]) if all(line in _told(one) for one in answers)]
    for line in common:
        click.echo(f"  {line}")
    width = max(len(answer.asset) for answer in answers)
    for answer in answers:
        if answer.equal:
            found = "the same bytes" + (ONLY_THERE if answer.on_disk else "")
            lines = []
        else:
            found = f"{click.style('differs', fg='red')} from byte {answer.first_offset} on"
            lines = _places(answer)
        click.echo(f"  {answer.asset:<{width}}  {found}")
        for line in [*(one for one in _told(answer) if one not in common), *lines]:
            click.echo(f"    {line}")


def _told(answer: Reproduction) -> list[str]:
    varied = [f"{name:<10}  {value}" for name, value in answer.varied.items()]
    return [*varied, *(f"not varied: {text}" for text in answer.kept)]


def _places(answer: Reproduction) -> list[str]:
    if answer.comparison is None:
        return []
    named = [
        f"{one.path or '/'}: {one.what}" + (f" (known noise: {one.noise})" if one.noise else "")
        for one in answer.comparison.differences
    ]
    return [answer.comparison.verdict.word, *named]


def exit_code(answers: Sequence[Reproduction]) -> int:
    """Return 0 when everything repeats, 4 otherwise."""
    from local_imager.errors import ExitCode

    equal = all(answer.equal for answer in answers)
    return int(ExitCode.OK if equal else ExitCode.COMPARISON_DIFFERS)
