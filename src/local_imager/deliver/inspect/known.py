"""The build in the store that made a file, found by the file's digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_imager.deliver.inspect.walking import LARGE_BYTES
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store


@dataclass(frozen=True, slots=True)
class Known:
    """The asset of the store whose bytes these are, and the outline of its build record.

    ``builder`` is the version of the imager that ran, ``exact`` whether it did every step itself.
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
        }


def find_known(
    store: Store, size_bytes: int, digest: str, hashed: Callable[[], str]
) -> Known | None:
    """Return the build whose result these bytes are, or None.

    ``digest`` may be empty; then ``hashed`` is called, but only when the store has an asset of
    this size, for hashing a whole disk takes longer than all else.
    """
    from local_imager.oci.model import Digest

    if not digest and size_bytes <= LARGE_BYTES:
        digest = hashed()
    if digest and not store.layout.has(Digest.parse(digest)):
        return None
    same_size = [asset for asset in store.assets() if asset.size_bytes == size_bytes]
    if same_size and not digest:
        digest = hashed()
    found = next((asset for asset in same_size if str(asset.digest) == digest), None)
    return _known(store, found) if found else None


def _known(store: Store, asset: StoredAsset) -> Known:
    from local_imager.pipeline.factory import ARTIFACT_BUILD_RECORD, ARTIFACT_SCHEMATIC

    documents = store.read_referrers(asset, ARTIFACT_BUILD_RECORD)
    record = _record(documents[-1]) if documents else {}
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
    )


def _record(data: bytes) -> dict[str, Any]:
    """Return a build record; one that is no JSON object says nothing, it is not in our way."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: object) -> str:
    return printable(value, limit=500) if isinstance(value, str) else ""
