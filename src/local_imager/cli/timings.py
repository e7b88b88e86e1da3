"""The table of ``build --timings``: where the time of a command went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from local_imager.pipeline.timing import Phase, Stopwatch

_HEAD = ("phase", "count", "seconds", "longest", "share")


def timings_document(watch: Stopwatch) -> dict[str, object]:
    """Return what ``--json`` says of the phases."""
    return {"timings": [phase.as_dict() for phase in watch.phases()]}


def print_timings(watch: Stopwatch) -> None:
    """Print the phases as a tree, the longest first, then what is left and the whole."""
    *parts, whole = watch.phases()
    rows = [
        (
            "  " * len(phase.inside) + phase.name,
            str(phase.count),
            f"{phase.seconds:.3f}",
            f"{phase.longest_s:.3f}",
            f"{100 * phase.share:.0f} %",
        )
        for phase in (*_longest_first(parts), whole)
    ]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    click.echo()
    for row in (_HEAD, *rows):
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        click.echo("  ".join((row[0].ljust(widths[0]), *cells)))


def _longest_first(phases: Sequence[Phase], inside: tuple[str, ...] = ()) -> Iterator[Phase]:
    """Yield the phases of one place, each with its parts behind it; ``other`` comes last."""
    here = [phase for phase in phases if phase.inside == inside]
    for phase in sorted(here, key=lambda phase: (phase.name == "other", -phase.seconds)):
        yield phase
        yield from _longest_first(phases, (*inside, phase.name))
