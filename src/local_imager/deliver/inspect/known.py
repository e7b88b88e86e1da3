"""The build in the store that made a file, found by the file's digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_imager.deliver.inspect.walking import LARGE_BYTES
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.deliver.reproduced import Reproduced
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store


@dataclass(frozen=True, slots=True)
class Known:
    """The asset of the store whose bytes these are, and the outline of its build record.

    ``builder`` is the version of the imager that ran, ``exact`` whether it did every step itself,
    ``varies`` what of it another build of the same key may have in other bytes, and why,
    ``reproduced`` what came of it when it was last built again.
    Fields of the record are empty where the store has none.
    """

    name: str
    asset: str
    version: str
    schematic_id: str
    build_key: str
    private: bool
    builder: str = ""
    builder_image: str = ""
    tool: str = ""
    started_at: str = ""
    exact: bool | None = None
    schematic: str | None = None
    varies: tuple[str, ...] = ()
    reproduced: Reproduced | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "name": self.name,
            "asset": self.asset,
            "version": self.version,
            "schematic_id": self.schematic_id,
            "build_key": self.build_key,
            "private": self.private,
            "builder": self.builder or None,
            "builder_image": self.builder_image or None,
            "tool": self.tool or None,
            "started_at": self.started_at or None,
            "exact": self.exact,
            "varies": list(self.varies),
            "reproduced": self.reproduced.as_dict() if self.reproduced else None,
        }


def find_known(
    store: Store, size_bytes: int, digest: str, hashed: Callable[[], str]
) -> Known | None:
    """Return the build whose result these bytes are, or None.

    ``digest`` may be empty; then ``hashed`` is called, but for a large file only when the store has
    an asset of its size, for hashing a whole disk takes longer than all else. A build that lost its
    name to a newer one of the same asset is found too, as long as it is in the store.
    """
    from local_imager.oci.model import Digest

    if not digest and (size_bytes <= LARGE_BYTES or _has_size(store, size_bytes)):
        digest = hashed()
    if not digest or not store.layout.has(Digest.parse(digest)):
        return None
    asset = _asset_with(store, digest)
    return _known(store, asset) if asset is not None else None


def _has_size(store: Store, size_bytes: int) -> bool:
    """Whether an asset has this size: as its entry says, or an older program's manifest."""
    if store.layout.index().saying(str(size_bytes)):
        return True
    return any(asset.size_bytes == size_bytes for asset in store.assets())


def _asset_with(store: Store, digest: str) -> StoredAsset | None:
    from local_imager.oci.model import Manifest
    from local_imager.store.records import ARTIFACT_ASSET, stored_asset

    found = []
    for entry in store.layout.index().holding(digest):
        if entry.artifact_type == ARTIFACT_ASSET and store.layout.has(entry.digest):
            manifest = store.layout.read_manifest(entry)
            if isinstance(manifest, Manifest) and manifest.layers:
                path = store.layout.blob_path(manifest.layers[0].digest)
                asset = stored_asset(entry, manifest, path)
                if asset is not None and str(asset.digest) == digest:
                    found.append((bool(entry.ref_name), asset))
    if found:
        return max(found, key=lambda row: row[0])[1]
    return next((asset for asset in store.assets() if str(asset.digest) == digest), None)


def _known(store: Store, asset: StoredAsset) -> Known:
    from local_imager.build.repeats import parse_record, varying
    from local_imager.deliver.reproduced import last_reproduction
    from local_imager.pipeline.factory import ARTIFACT_BUILD_RECORD, ARTIFACT_SCHEMATIC

    record = parse_record(store.read_referrers(asset, ARTIFACT_BUILD_RECORD))
    tool = record.get("tool")
    builder = record.get("builder")
    exact = record.get("exact")
    texts = store.read_referrers(asset, ARTIFACT_SCHEMATIC)
    return Known(
        name=asset.name,
        asset=asset.asset,
        version=asset.version,
        schematic_id=asset.schematic_id,
        build_key=asset.build_key,
        private=asset.private,
        builder=_text(record.get("builder_version")),
        builder_image=_text(builder.get("reference")) if isinstance(builder, dict) else "",
        tool=f"{_text(tool.get('name'))} {_text(tool.get('version'))}"
        if isinstance(tool, dict)
        else "",
        started_at=_text(record.get("started_at")),
        exact=exact if isinstance(exact, bool) else None,
        schematic=texts[-1].decode(errors="replace") if texts else None,
        varies=varying(record),
        reproduced=last_reproduction(store, asset),
    )


def _text(value: object) -> str:
    return printable(value, limit=500) if isinstance(value, str) else ""
