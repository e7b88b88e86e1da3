"""What only wraps something: compression and the containers of disks.

What is inside is the only child, ``content``.
"""

from __future__ import annotations

from local_imager.deliver.inspect.parts import Fact
from local_imager.deliver.inspect.volumes import clean
from local_imager.deliver.inspect.walking import Inside, Shared, Walk
from local_imager.formats.mapped import DiskView
from local_imager.formats.packing import HEAD_BYTES, packing_of, unpack, xz_check_of
from local_imager.formats.source import Source


def open_compressed(walk: Walk, source: Source) -> Inside:
    """Unpack a stream once, and return what is in it."""
    head = source.read(0, min(HEAD_BYTES, source.size_bytes))
    packing = packing_of(head)
    facts: dict[str, Fact] = {"packing": packing}
    if packing == "xz":
        facts["check"] = xz_check_of(head)
    chunks = unpack(source, packing, max_bytes=walk.reader_bytes)
    with walk.unpacked(chunks) as content:
        return Inside(facts=facts, children=(walk.part(content, "content"),))


def open_qcow2(walk: Walk, source: Source) -> Inside:
    """Return the disk in a qcow2 file."""
    from local_imager.formats import qcow2

    return _disk(walk, qcow2.open_qcow2(source))


def open_vhd(walk: Walk, source: Source) -> Inside:
    """Return the disk in a VHD file."""
    from local_imager.formats import vhd

    return _disk(walk, vhd.open_vhd(source))


def open_vmdk(walk: Walk, source: Source) -> Inside:
    """Return the disk in a VMDK file."""
    from local_imager.formats import vmdk

    return _disk(walk, vmdk.open_vmdk(source))


def _disk(walk: Walk, view: DiskView) -> Inside:
    facts = {
        key: clean(value) if isinstance(value, str) else value for key, value in view.facts.items()
    }
    return Inside(facts=facts, children=(walk.part(Shared(view.source), "content"),))
