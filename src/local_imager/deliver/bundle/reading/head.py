"""The head of a bundle's file: manifest and part label, and nothing of what follows them."""

from __future__ import annotations

from dataclasses import dataclass

from local_imager.deliver.bundle.form.model import Bundle, PartLabel
from local_imager.deliver.bundle.reading.faults import Ended, FaultList
from local_imager.deliver.bundle.reading.front import Front, read_front
from local_imager.deliver.bundle.reading.packing import filler_for
from local_imager.deliver.bundle.reading.partstream import PartStream
from local_imager.deliver.bundle.reading.reader import STANDARD_INPUT, open_part
from local_imager.errors import SourceError
from local_imager.events import printable


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself; ``manifest`` are the bytes that a signature is over."""

    name: str
    bundle: Bundle
    label: PartLabel
    manifest: bytes


def read_head(path: str) -> Head:
    """Read manifest and label of a part (``-`` is standard input), then stop reading.

    Nothing else of the file is looked at, so nothing is said about it. Raises
    :class:`InputError` when there is no such file or it is no bundle, :class:`SourceError`
    (malformed) when its head is damaged.
    """
    name = "standard input" if path == STANDARD_INPUT else printable(path, limit=300)
    faults = FaultList()
    with open_part(path) as stream:
        part = PartStream(filler_for(stream, name))
        try:
            front: Front | None = read_front(part, name, faults)
        except Ended as end:
            front = None
            faults.add(end.kind, end.untrusted_member, end.text)
        finally:
            part.close()
    if front is not None and front.label is not None and front.sound:
        return Head(name, front.bundle, front.label, front.manifest)
    said = "; ".join(f"{fault.member}: {fault.text}" for fault in faults.kept)
    raise SourceError(
        f"{name} is damaged where it says what it holds: {said}",
        hint="copy the file once more; `local-imager bundle verify` names every fault of it",
        code="malformed",
    )
