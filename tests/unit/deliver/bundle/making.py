"""Making bundles of a signed upstream in miniature, in process and without an engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from local_imager.build.request import ImagerRequest
from local_imager.deliver.bundle.near.create import (
    Created,
    Form,
    Preview,
    create_bundle,
    preview_bundle,
)
from local_imager.deliver.bundle.near.order import Order, SchematicFile
from local_imager.deliver.bundle.reading.reader import LookOnly, open_part, read_part
from local_imager.events import NULL_SINK, Message, RecordingSink
from local_imager.oci.layout import Layout
from local_imager.oci.model import Reference
from local_imager.pipeline.factory import Factory
from local_imager.profile.quirks import Quirks
from local_imager.schematic.parse import parse_schematic
from local_imager.settings import Settings, TrustEntries
from tests.fakerunner import FakeRunner
from tests.unit.sources.forge import REGISTRY, Forge, Signing
from tests.unit.sources.test_upstream import V190, V1130, World

PLAIN = b"customization: {}  # as it is\n"
RICH = (
    b"customization: {systemExtensions: {officialExtensions: [siderolabs/gvisor]}}\n"
    b"overlay: {name: board, image: siderolabs/sbc}\n"
)
SECRET = b"customization: {extraKernelArgs: [token=hunter2]}\n"
NOISE_BYTES = 300_000
FLANNEL = Reference.parse(f"{REGISTRY}/cni/flannel:v0.26")
SBOM = "application/spdx+json"


def schematic_file(name: str, data: bytes) -> SchematicFile:
    """A schematic as it is read from a file."""
    return SchematicFile(name, data, parse_schematic(data))


def imager(request: ImagerRequest, _: tuple[str, ...]) -> tuple[str, ...]:
    """Write what was asked for, the same each time."""
    (name,) = request.outputs
    return ("sh", "-c", 'cat >/dev/null; echo "made" > "$1"', "x", str(request.output_dir / name))


class Making(World):
    """An upstream with installers and two further images, and stores to make bundles from."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for version in (V190, V1130):
            name = Quirks.of(version).base_installer_name
            self.add(name, str(version), {"x": str(version).encode()})
        noise = os.urandom(NOISE_BYTES)
        self.cni = self.add("cni/flannel", "v0.26", {"flanneld": noise})
        top = self.forge.layout.resolve(f"{REGISTRY}/cni/flannel:v0.26")
        assert top is not None
        name = f"{REGISTRY}/cni/flannel:sha256-{top.digest.hex}"
        self.forge.layout.attach(top, SBOM, b'{"spdx":1}', SBOM, list_name=name)
        self.runner = FakeRunner(imager)

    def at(self, path: Path) -> Making:
        """The same upstream with stores and bundles in another folder; nobody may change it."""
        other = copy(self)
        other.path, other.sink, other.runner = path, RecordingSink(), FakeRunner(imager)
        return other

    def apart(self) -> Making:
        """Let the upstream be a copy of its own, which may be changed."""
        target = self.path / "upstream"
        shutil.copytree(self.forge.layout.path, target, copy_function=_link)
        self.forge = Forge(target, self.registry)
        return self

    @property
    def signing_id(self) -> str:
        """Who signed all images."""
        return str(self.signing.policy().rules[0].signer.key.key_id)  # type: ignore[union-attr]

    def settings(self, store: str = "store", **more: Any) -> Settings:
        """Settings over a store of this name."""
        entry = {"pattern": f"{REGISTRY}/**", "key": self.signing.pem}
        trust = (TrustEntries("test", self.path, (entry,), True),)
        settings = Settings(
            store=self.path / store,
            registry=REGISTRY,
            source=str(self.forge.layout.path),
            trust=trust,
            jobs=2,
        )
        return replace(settings, **more)

    def factory(self, store: str = "store", **more: Any) -> Factory:
        """The application over a store of this name."""
        return Factory(self.settings(store, **more), sink=self.sink, runner=self.runner)

    def order(self, *schematics: SchematicFile, **more: Any) -> Order:
        """An order for v1.9.0 on amd64 unless told otherwise."""
        given: dict[str, Any] = {
            "versions": (V190,),
            "arches": ("amd64",),
            "host_arches": ("amd64",),
            "schematics": schematics,
        }
        return Order(**{**given, **more}).check()

    def create(
        self,
        order: Order,
        name: str = "site.tar",
        *,
        store: str = "store",
        settings: dict[str, Any] | None = None,
        **form: Any,
    ) -> Created:
        """Write a bundle beside the upstream."""
        wanted = Form(self.path / name, **form)
        return create_bundle(self.factory(store, **(settings or {})), order, wanted, self.sink)

    def look(self, order: Order, *, store: str = "store", **form: Any) -> Preview:
        """Work out what a bundle would be."""
        scratch = Layout.create(self.path / f"scratch-{os.urandom(4).hex()}")
        wanted = Form(self.path / "site.tar", **form)
        return preview_bundle(self.factory(store), order, wanted, self.sink, scratch)

    def said(self, level: str = "info") -> list[str]:
        """What messages told."""
        told = (event for event in self.sink.events if isinstance(event, Message))
        return [event.text for event in told if event.level == level]

    def rich(self, **more: Any) -> Order:
        """An order with extension, overlay, and a further image with a large blob."""
        return self.order(schematic_file("rich.yaml", RICH), images=(FLANNEL,), **more)

    def further(self) -> Order:
        """The smallest order with a large blob."""
        return self.order(versions=(), images=(FLANNEL,))

    def forget(self) -> None:
        """Drop what was told so far."""
        self.sink = RecordingSink()

    def names(self) -> list[str]:
        """Files of the folder, which a bundle could have left."""
        return sorted(entry.name for entry in os.scandir(self.path) if not entry.is_dir())


def _link(source: str, target: str) -> str:
    if "/blobs/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
    return target


def key_file(path: Path, key: Signing) -> Path:
    """Write a private key that its owner alone can read."""
    pem = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o600)
    return path


def item_names(created: Created | Preview, kind: str = "image") -> Sequence[str]:
    """The names of the items of a kind, without digests and registry."""
    names = [item.name for item in created.bundle.items if item.kind == kind]
    return [name.partition("@")[0].removeprefix(f"{REGISTRY}/") for name in names]


def faults_of(path: Path) -> tuple[object, ...]:
    """What a reader finds wrong with a file."""
    with open_part(path) as stream:
        return read_part(stream, path.name, LookOnly(), NULL_SINK).faults


_SHARED: dict[str, Making] = {}


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """The upstream, which no test may change; the same for every module that imports this."""
    if "one" not in _SHARED:
        _SHARED["one"] = Making(tmp_path_factory.mktemp("making"))
    return _SHARED["one"]


@pytest.fixture(scope="session")
def seeded(miniature: Making) -> Path:
    """A store with everything, so that most tests need not fetch."""
    store = miniature.path / "seed"
    if not store.exists():
        order = miniature.order(schematic_file("rich.yaml", RICH), images=(FLANNEL,))
        miniature.create(order, "seed.tar", store="seed")
    return store


@pytest.fixture
def making(miniature: Making, seeded: Path, tmp_path: Path) -> Making:
    """The upstream with a full store of the test's own."""
    ignored = shutil.ignore_patterns("locks")
    shutil.copytree(seeded, tmp_path / "store", copy_function=_link, ignore=ignored)
    return miniature.at(tmp_path)
