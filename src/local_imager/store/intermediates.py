"""Normalised initramfs that builds share, kept under their key.

One is an artifact of its own type under a name of its own, so it is no asset: ``store ls`` does not
list it and bundles do not carry it. A collection treats it as it treats assets.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from local_imager.errors import SourceError, StoreError
from local_imager.oci.model import Descriptor, Manifest, canonical_json
from local_imager.oci.seal import touch
from local_imager.store.records import ANNOTATION_PRIVATE
from local_imager.store.store import Store

INITRAMFS_PREFIX: Final = "local-imager/initramfs/"
ARTIFACT_INITRAMFS: Final = "application/vnd.local-imager.initramfs.v1"
MEDIA_INITRAMFS: Final = "application/vnd.local-imager.initramfs"
ANNOTATION_FACTS: Final = "io.local-imager.initramfs.facts"


class KeptInitramfs:
    """The normalised initramfs of a store (what a build calls its keeper).

    ``fresh`` finds none, so that all is made anew; what is made is kept as always.
    """

    def __init__(self, store: Store, *, fresh: bool = False) -> None:
        self._store = store
        self._fresh = fresh

    def find(self, key: str, dest: Path) -> Mapping[str, Any] | None:
        """Place the initramfs of a key at ``dest`` and return its facts; None when it is not kept.

        Counts as a use. A damaged one is taken for none.
        """
        layout = self._store.layout
        entry = None if self._fresh else layout.resolve(INITRAMFS_PREFIX + key)
        if entry is None or entry.artifact_type != ARTIFACT_INITRAMFS:
            return None
        layer, facts = self._content(entry)
        if layer is None or not layout.intact(layer.digest, layer.size_bytes):
            return None
        if facts.get("key") != key or facts.get("digest") != str(layer.digest):
            return None
        blob = layout.blob_path(layer.digest)
        with contextlib.suppress(OSError):
            touch(blob)
        try:
            _place(blob, dest)
        except OSError:  # a collection was quicker
            return None
        return facts

    def _content(self, entry: Descriptor) -> tuple[Descriptor | None, dict[str, Any]]:
        try:
            manifest = self._store.layout.read_manifest(entry)
            facts = json.loads(manifest.annotations[ANNOTATION_FACTS])
        except (SourceError, StoreError, KeyError, ValueError):
            return None, {}
        if not isinstance(manifest, Manifest) or not manifest.layers or type(facts) is not dict:
            return None, {}
        return manifest.layers[0], facts

    def keep(self, key: str, path: Path, facts: Mapping[str, Any], *, private: bool) -> None:
        """Keep a copy of a finished file; raises :class:`StoreError`."""
        layout = self._store.layout
        annotations = {ANNOTATION_FACTS: canonical_json(dict(facts)).decode()}
        if private:
            annotations[ANNOTATION_PRIVATE] = "true"
        with layout.writing():
            layer = layout.put_file(path, MEDIA_INITRAMFS, private=private)
            made = layout.put_artifact(ARTIFACT_INITRAMFS, layer, annotations=annotations)
            plain = Descriptor(
                made.media_type, made.digest, made.size_bytes, artifact_type=ARTIFACT_INITRAMFS
            )
            layout.set_ref(INITRAMFS_PREFIX + key, plain)


def _place(blob: Path, dest: Path) -> None:
    try:
        os.link(blob, dest)
    except OSError:
        shutil.copyfile(blob, dest)
