"""The table of ``build --timings``: where the time of a command went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from local_imager.pipeline.timing import Stopwatch

_HEAD = ("phase", "count", "seconds", "longest", "share")


def timings_document(watch: Stopwatch) -> dict[str, object]:
    """Return what ``--json`` says of the phases."""
    return {"timings": [phase.as_dict() for phase in watch.phases()]}


def print_timings(watch: Stopwatch) -> None:
    """Print the phases, those that took longest first and the whole last."""
    *parts, whole = watch.phases()
    parts.sort(key=lambda phase: -phase.seconds)
    rows = [
        (
            phase.name,
            str(phase.count),
            f"{phase.seconds:.3f}",
            f"{phase.longest_s:.3f}",
            f"{100 * phase.share:.0f} %",
        )
        for phase in (*parts, whole)
    ]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    click.echo()
    for row in (_HEAD, *rows):
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        click.echo("  ".join((row[0].ljust(widths[0]), *cells)))
