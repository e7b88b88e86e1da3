"""Which blobs may be earlier versions of a blob: those with the same part in the same image.

The same repository and architecture, or an asset of the same file name, in any version that the
near store holds and the far side has too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Blob, Item
from local_imager.errors import InputError, SourceError, StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Digest, Index, Reference
from local_imager.oci.names import attached_to
from local_imager.store.incoming import is_incoming
from local_imager.store.records import ASSET_PREFIX

# A version that became so much larger or smaller has little in common with this one.
_MAX_RATIO: Final = 3
# Each candidate is read once to see how much it resembles.
MAX_CANDIDATES: Final = 3

Family = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer in its place, from below, of an image or asset of a family."""

    digest: Digest
    size_bytes: int
    position: int


def candidates(
    targets: Sequence[Blob], items: Sequence[Item], layout: Layout, inventory: Inventory
) -> Mapping[Digest, tuple[Digest, ...]]:
    """Return for each blob the bases to try, the most promising first; few, or none.

    Every base is on the far side, and listed by a manifest of the layout. What cannot be read there
    is passed over.
    """
    parts: dict[Digest, list[tuple[Family, int]]] = {}
    wanted = {blob.digest for blob in targets}
    for item in (item for item in items if not wanted.isdisjoint(item.blobs)):
        for family, layer in _layers(layout, item.name, item.descriptor):
            parts.setdefault(layer.digest, []).append((family, layer.position))
    families = {family for found in parts.values() for family, _ in found}
    known = _known(layout, inventory, families)
    return {
        blob.digest: tuple(_ordered(blob, parts.get(blob.digest, ()), known)) for blob in targets
    }


def _ordered(
    blob: Blob, parts: Collection[tuple[Family, int]], known: Mapping[Family, Collection[_Layer]]
) -> list[Digest]:
    ranked: dict[Digest, tuple[bool, int, Digest]] = {}
    for family, position in parts:
        for layer in known.get(family, ()):
            smaller, larger = sorted((layer.size_bytes, blob.size_bytes))
            if layer.digest != blob.digest and larger <= _MAX_RATIO * smaller:
                rank = (layer.position != position, larger - smaller, layer.digest)
                ranked[layer.digest] = min(rank, ranked.get(layer.digest, rank))
    return sorted(ranked, key=lambda digest: ranked[digest])[:MAX_CANDIDATES]


def _known(
    layout: Layout, inventory: Inventory, families: Collection[Family]
) -> Mapping[Family, set[_Layer]]:
    known: dict[Family, set[_Layer]] = {}
    wanted = {name for name, _ in families}
    for entry in layout.entries():
        name = entry.ref_name
        if attached_to(name) is not None or is_incoming(entry) or _family_name(name) not in wanted:
            continue
        for family, layer in _layers(layout, name, entry):
            if inventory.holds(layer.digest):
                known.setdefault(family, set()).add(layer)
    return known


def _family_name(name: str) -> str:
    """Return what versions of a thing have in common: repository, or file name of an asset."""
    if name.startswith(ASSET_PREFIX):
        return name.rpartition("/")[2]
    try:
        return Reference.parse(name).name
    except InputError:
        return ""


def _layers(layout: Layout, name: str, entry: Descriptor) -> Iterator[tuple[Family, _Layer]]:
    family = _family_name(name)
    stack = [(entry, "")] if family else []
    while stack:
        descriptor, arch = stack.pop()
        try:
            found = layout.read_manifest(descriptor)
        except (SourceError, StoreError):
            continue
        if isinstance(found, Index):
            # One level only, so that an index that names itself ends.
            children = found.manifests if descriptor is entry else ()
            stack += [(c, c.platform.architecture) for c in children if c.platform is not None]
            continue
        for position, layer in enumerate(found.layers):
            yield (family, arch), _Layer(layer.digest, layer.size_bytes, position)
