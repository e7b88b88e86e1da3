"""A near side in miniature whose bundles are checked, whole, cut or with less in them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_imager.deliver.bundle.form.inventory import Inventory
from local_imager.deliver.bundle.form.model import Bundle, Piece
from local_imager.deliver.bundle.near.contents import (
    DocumentRoot,
    ImageRoot,
    compose,
)
from local_imager.deliver.bundle.proof.check import Question, check_files
from local_imager.deliver.bundle.proof.proofs import Completeness, Lack
from local_imager.events import NULL_SINK
from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.pipeline.lockfile import Lock
from local_imager.pipeline.locking import LockOrder, make_lock
from local_imager.profile.assetname import AssetName
from local_imager.profile.model import Arch, Requirement
from local_imager.profile.quirks import Quirks
from local_imager.schematic.model import Schematic
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings
from local_imager.sources.closure import schematic_images, version_images
from tests.bundlefiles import Sample
from tests.unit.sources.forge import REGISTRY
from tests.unit.sources.test_upstream import V190, V1130, World

PLAIN = b"customization: {}\n"
RICH = (
    b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}\n"
    b"overlay: {name: board, image: siderolabs/sbc}\n"
)
IMAGER = f"{REGISTRY}/siderolabs/imager"
ISO, INSTALLER = AssetName.parse("metal-amd64.iso"), AssetName.parse("installer-amd64.tar")


class Near(World):
    """The near side: a signed upstream with installers, and bundles made of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for version in (V190, V1130):
            name = Quirks.of(version).base_installer_name
            self.add(name, str(version), {"x": str(version).encode()})
        self.policy = self.signing.policy(f"{REGISTRY}/**")
        self.catalogue = self.sources().catalogue(V190)
        self.at(path)

    def alone(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> Near:
        """The same upstream for one test, which opens no socket and writes below this folder."""

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a socket was opened")

        (path / "tmp").mkdir()
        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.setattr("tempfile.tempdir", str(path / "tmp"))
        return copy(self).at(path)

    def at(self, path: Path) -> Near:
        """Write bundles here, and have the settings name a store here, which is not there."""
        self.folder = path
        self.settings = Settings(store=path / "settings-store", registry=REGISTRY, jobs=2)
        return self

    def requirements(
        self, schematic: Schematic, arches: Sequence[Arch] = ("amd64",), builder: str = "v1.13.0"
    ) -> list[Requirement]:
        """All images of a build of v1.9.0, and the builder's."""
        found = (
            Requirement("builder", "siderolabs/imager", builder),
            *version_images(V190, arches),
            *schematic_images(schematic, self.catalogue, arches),
        )
        return [one for one in found if one.tag]

    def roots(
        self, requirements: Sequence[Requirement], arches: tuple[str, ...] = ("amd64",)
    ) -> list[ImageRoot]:
        """The images as `bundle create` names them, each once."""
        found: dict[str, ImageRoot] = {}
        for one in requirements:
            reference = one.reference(REGISTRY)
            entry = self.forge.layout.resolve(f"{reference.name}:{reference.tag}")
            assert entry is not None
            before = found.get(str(reference))
            roles = tuple(dict.fromkeys((*(before.roles if before else ()), one.role)))
            plain = replace(entry, annotations={})
            found[str(reference)] = ImageRoot(str(reference), plain, arches, roles)
        return list(found.values())

    def bundle(
        self,
        roots: Sequence[ImageRoot],
        documents: Sequence[DocumentRoot] = (),
        change: Callable[[Bundle], Bundle] | None = None,
    ) -> Sample:
        """A bundle of these roots; ``change`` makes another manifest of it."""
        layout = self.forge.layout
        contents = compose(layout, roots, (), documents)
        bundle = contents.bundle({"versions": ("v1.9.0",), "arches": ("amd64",)})
        bundle = change(bundle) if change else bundle
        data = {Digest.of(contents.index): contents.index, **contents.made}
        for blob in bundle.blobs:
            if blob.digest not in data and layout.has(blob.digest):
                data[blob.digest] = layout.blob_path(blob.digest).read_bytes()
        return Sample(bundle, data)

    def lock(self, schematics: Sequence[tuple[str, bytes]] = (("rich.yaml", RICH),)) -> Lock:
        """A lock of v1.9.0."""
        pairs = tuple((name, parse_schematic(data)) for name, data in schematics)
        return make_lock(LockOrder(pairs, (V190,), ("amd64",)), self.settings, self.sources())

    def check(
        self, bundle: Sample | bytes | Sequence[str], /, *assets: AssetName, **more: Any
    ) -> Completeness:
        """Check a bundle (its parts are written first) for v1.9.0."""
        policy = more.pop("policy", self.policy)
        settings = more.pop("settings", self.settings)
        sink = more.pop("sink", NULL_SINK)
        signature = more.pop("signature", None)
        data: list[str] = []
        if isinstance(bundle, Sample):
            data = [self.write(n, bundle.part(n)) for n in range(1, len(bundle.bundle.parts) + 1)]
        elif isinstance(bundle, bytes):
            data = [self.write(1, bundle)]
        else:
            data = list(bundle)
        question = {"schematics": (("rich.yaml", parse_schematic(RICH)),), **more}
        asked = Question((V190,), assets=assets or (ISO, INSTALLER), **question)
        return check_files(data, asked, settings, policy, sink, signature=signature)

    def write(self, number: int, data: bytes) -> str:
        """Write one part."""
        path = self.folder / f"part{number}.tar"
        path.write_bytes(data)
        return str(path)


def rich(near: Near, **more: Any) -> Sample:
    return near.bundle(near.roots(near.requirements(parse_schematic(RICH))), **more)


def lacks(found: Completeness) -> list[tuple[str, str, str]]:
    return [(one.kind, one.role, one.name) for one in found.lacks()]


def only_lack(found: Completeness) -> Lack:
    (lack,) = found.lacks()
    return lack


def without(roots: Sequence[ImageRoot], name: str) -> list[ImageRoot]:
    kept = [root for root in roots if name not in root.name]
    assert len(kept) < len(roots)
    return kept


def layer_of(near: Near, name: str, arch: str = "amd64") -> Digest:
    """The one layer of an image."""
    entry = near.forge.layout.resolve(name)
    assert entry is not None
    return layer_below(near.forge.layout, entry, arch)


def layer_below(layout: Layout, entry: Any, arch: str) -> Digest:
    from local_imager.oci.export import select_image

    _, manifest = select_image(layout, entry.digest, arch)
    digest: Digest = manifest.layers[0].digest
    return digest


def in_parts(sample: Sample, cut: Digest) -> Sample:
    """The same in two parts, one blob cut in the middle."""
    (pieces,) = sample.bundle.parts
    at = next(n for n, piece in enumerate(pieces) if piece.blob == cut)
    data = sample.contents[cut]
    middle = len(data) // 2
    first = Piece(cut, 0, middle, Digest.of(data[:middle]), False)
    second = Piece(cut, middle, len(data) - middle, Digest.of(data[middle:]), False)
    return sample.split((*pieces[:at], first), (second, *pieces[at + 1 :]))


def leaving_out(*digests: Digest) -> Callable[[Bundle], Bundle]:
    """Make a delta of a bundle: these blobs are on the far side."""

    def change(bundle: Bundle) -> Bundle:
        blobs = tuple(
            replace(blob, carried=False) if blob.digest in digests else blob
            for blob in bundle.blobs
        )
        parts = tuple(
            tuple(piece for piece in part if piece.blob not in digests) for part in bundle.parts
        )
        return replace(bundle, blobs=blobs, parts=parts, since=Digest.of(b"far.json"))

    return change


def inventory(near: Near, *digests: Digest) -> Inventory:
    sizes = {d: near.forge.layout.blob_path(d).stat().st_size for d in digests}
    return Inventory(dict(sorted(sizes.items())))
