"""The assets that travel: built or found in the store, each with its name and its referrers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.near.contents import AssetRoot
from local_imager.deliver.bundle.near.order import LOCK_NAME, Order
from local_imager.errors import StoreError
from local_imager.oci.layout import Layout
from local_imager.oci.model import ANNOTATION_REF_NAME, MAX_MANIFEST_BYTES, Descriptor, Digest
from local_imager.oci.names import fallback_tag, find_referrers_list
from local_imager.pipeline.factory import Factory
from local_imager.pipeline.lockfile import Lock, LockFile, render_lock
from local_imager.pipeline.values import BuildOrder, BuildResult
from local_imager.profile.assetname import AssetName
from local_imager.schematic.canonical import schematic_id
from local_imager.store.records import ANNOTATION_BUILD_KEY, ARTIFACT_ASSET, asset_name
from local_imager.store.store import Store

_SHORT: Final = 12


def build_assets(factory: Factory, order: Order, lock: Lock) -> tuple[AssetRoot, ...]:
    """Build (or find) every wanted asset of each schematic and version, held to the lock.

    Raises what :meth:`Factory.build` raises.
    """
    file = LockFile(Path(LOCK_NAME), lock, Digest.of(render_lock(lock)))
    results: list[BuildResult] = []
    for version in order.versions:
        for entry in order.schematics:
            build = BuildOrder(
                entry.schematic, str(version), order.assets, offline=order.offline, lock=file
            )
            results += factory.build(build)
    return _sorted([_finished(factory.store, result) for result in results])


def _finished(store: Store, result: BuildResult) -> AssetRoot:
    """Return the asset that was built; it travels under its name, whoever has that here by now."""
    for entry in store.layout.index().holding(str(result.manifest_digest)):
        if entry.digest == result.manifest_digest and entry.artifact_type == ARTIFACT_ASSET:
            return _root(entry, asset_name(result.schematic_id, result.version, result.asset))
    raise StoreError(
        f"{result.asset} was built and is not in the store any more",
        hint="another process removed it; run the command again",
    )


def stored_assets(
    store: Store, order: Order, scratch: Layout
) -> tuple[tuple[AssetRoot, ...], tuple[str, ...]]:
    """Return those of the wanted assets that the store has, and the names of the others.

    Their manifests are copied to ``scratch``. Nothing is built; one that would be built anew may
    turn out another size.
    """
    found, unbuilt = [], []
    for version in order.versions:
        for schematic in order.schematics:
            key = str(schematic_id(schematic.schematic))
            for asset in order.assets:
                name = asset_name(key, str(version), str(AssetName.parse(asset)))
                entry = store.layout.resolve(name)
                if entry is None:
                    unbuilt.append(name)
                    continue
                _copy_manifests(store.layout, scratch, entry)
                found.append(_root(entry, name))
    return _sorted(found), tuple(sorted(unbuilt))


def _sorted(found: list[AssetRoot]) -> tuple[AssetRoot, ...]:
    by_name = {root.entry.ref_name: root for root in found}
    return tuple(by_name[name] for name in sorted(by_name))


def _root(entry: Descriptor, name: str) -> AssetRoot:
    schematic, version, file = name.split("/")[-3:]
    key = entry.annotations.get(ANNOTATION_BUILD_KEY, "")
    said = {ANNOTATION_REF_NAME: name, ANNOTATION_BUILD_KEY: key}
    what = f"{file} of the schematic {schematic[:_SHORT]} for Talos {version}"
    return AssetRoot(replace(entry, annotations=said), what, (AssetName.parse(file).arch,))


def _copy_manifests(layout: Layout, scratch: Layout, entry: Descriptor) -> None:
    """Copy an asset's manifest and the manifests of its referrers, with their list."""
    listed = find_referrers_list(layout.index().holding(fallback_tag(entry.digest)), entry.digest)
    for one in (entry, *layout.referrers(entry.digest), *filter(None, (listed,))):
        data = layout.read_blob(one.digest, max_bytes=MAX_MANIFEST_BYTES)
        scratch.put_bytes(data, one.media_type)
    if listed is not None:
        scratch.set_ref(listed.ref_name, listed)
