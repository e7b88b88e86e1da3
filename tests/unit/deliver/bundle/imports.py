"""Importing in tests: one call, and what it left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_imager.deliver.bundle.far.importing import Imported, import_files
from local_imager.deliver.bundle.far.intake import Wishes
from local_imager.deliver.bundle.far.report import ImportReport
from local_imager.events import RecordingSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Reference
from local_imager.sources.held import held_descriptor, is_complete
from local_imager.sources.verify import verify_image
from local_imager.store.incoming import is_incoming
from local_imager.store.store import Store
from tests.unit.deliver.bundle.nearside import NearSide


def take(near: NearSide, store: Store | None, files: Sequence[Path], **more: Any) -> Imported:
    """Import files with these wishes, under the far side's policy unless another is given."""
    policy = more.pop("policy", None) or near.policy()
    signature, handout = more.pop("signature", None), more.pop("handout", None)
    wishes = Wishes(policy, **more)
    names = [str(path) for path in files]
    return import_files(names, store, wishes, RecordingSink(), signature=signature, handout=handout)


def one(done: Imported) -> ImportReport:
    """Return the one report that there is."""
    (report,) = done.reports
    assert done.unknown == ()
    return report


def states(report: ImportReport) -> dict[str, str]:
    """What became of each item."""
    return {outcome.item.name: report.state_of(outcome) for outcome in report.outcomes}


def visible(store: Store) -> set[str]:
    """The names of images, assets and what is attached, holds and reports left out."""
    return {
        entry.ref_name
        for entry in store.layout.entries()
        if not is_incoming(entry) and not entry.ref_name.startswith("local-imager/import/")
    }


def assert_whole(store: Store, near: NearSide, name: str, arches: tuple[str, ...]) -> None:
    """The image is complete, and the store alone verifies it."""
    reference = Reference.parse(name)
    held = held_descriptor(store.layout, reference)
    assert held is not None and is_complete(store.layout, held, arches)
    verify_image(LayoutSource.open(store.path), reference, held, near.policy())
