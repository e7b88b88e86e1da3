"""All images of one Talos version, put into the upstream layout under their names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.archives import Entry, Layer, write_layer
from lab.extensions import Extension, extensions_for, put_extension
from lab.oci import Descriptor, Layout
from lab.overlay import OVERLAYS, put_overlay
from lab.place import ARCHITECTURES, parse_version

INSTALLER_BASE_SINCE = (1, 10, 0)
"""From this version on upstream publishes installer-base, before it installer."""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ARM64_INSTALLER = """\
#!/bin/sh
echo "lab stand-in: no installer program was built for arm64" >&2
exit 1
"""


@dataclass(frozen=True, slots=True)
class VersionParts:
    """The layers that the images of a version are put together from."""

    version: str
    rootfs: Layer
    boot: Layer
    imager_program: Layer
    installer_program: dict[str, Layer]
    initramfs: Layer
    initramfs_of: dict[str, Layer]


def program_layer(target: Path, binary: Path) -> Layer:
    """Pack the imager program under both of its names, which it tells apart by argv[0].

    In usr/bin, since /bin is a link to it that a folder of this layer would replace.
    """
    return write_layer(
        target,
        [
            Entry("usr/bin/installer", binary, mode=0o755),
            Entry("usr/bin/imager", link_target="installer", mode=0o777),
        ],
    )


def installer_layers(folder: Path, binary: Path, arm64_busybox: Path) -> dict[str, Layer]:
    """Pack the installer's program layer per architecture; arm64's is a stand-in that says so."""
    amd64 = write_layer(
        folder / "installer-amd64.tar.gz", [Entry("bin/installer", binary, mode=0o755)]
    )
    arm64 = write_layer(
        folder / "installer-arm64.tar.gz",
        [
            Entry("bin/busybox", arm64_busybox, mode=0o755),
            Entry("bin/sh", link_target="busybox", mode=0o777),
            Entry("bin/installer", _ARM64_INSTALLER.encode(), mode=0o755),
        ],
    )
    return {"amd64": amd64, "arm64": arm64}


def initramfs_layer(target: Path, files: dict[str, Path]) -> Layer:
    """Pack /usr/install/<arch>/initramfs.xz for the architectures given."""
    return write_layer(
        target,
        [Entry(f"usr/install/{arch}/initramfs.xz", path) for arch, path in files.items()],
        level=1,
    )


@dataclass(slots=True)
class ImageSet:
    """Puts the images of one version into a layout under one registry prefix."""

    layout: Layout
    prefix: str
    parts: VersionParts
    work: Path

    @property
    def version(self) -> str:
        return self.parts.version

    def _labels(self) -> dict[str, str]:
        return {
            "alpha.talos.dev/version": self.version,
            "org.opencontainers.image.source": "local-imager lab",
        }

    def _name(self, descriptor: Descriptor, path: str, tag: str) -> Descriptor:
        self.layout.name(descriptor, f"{self.prefix}/{path}:{tag}")
        return descriptor

    def put_imager(self) -> None:
        """The imager: amd64 can run, arm64 holds the boot assets only; assets of both in each."""
        parts = self.parts
        labels = self._labels()
        assets = [parts.boot, parts.initramfs]
        config = {"Env": [_PATH], "Entrypoint": ["/bin/imager"], "Labels": labels}
        amd64 = self.layout.put_image(
            "amd64", [parts.rootfs, *assets, parts.imager_program], config
        )
        arm64 = self.layout.put_image("arm64", assets, {"Labels": labels})
        self._name(self.layout.put_index([amd64, arm64]), "siderolabs/imager", self.version)

    def put_installer(self) -> None:
        """The base installer: two layers before v1.10, where the imager replaces the second."""
        parts = self.parts
        old = parse_version(self.version) < INSTALLER_BASE_SINCE
        children = []
        for arch in ARCHITECTURES:
            layers = [parts.installer_program[arch]]
            if old:
                layers.append(parts.initramfs_of[arch])
            config = {
                "Env": [_PATH],
                "Entrypoint": ["/bin/installer"],
                "Labels": self._labels(),
            }
            children.append(self.layout.put_image(arch, layers, config))
        name = "siderolabs/installer" if old else "siderolabs/installer-base"
        self._name(self.layout.put_index(children), name, self.version)

    def put_extensions(self, extensions: Sequence[Extension] | None = None) -> None:
        """The extension images and the catalogue that lists them by digest."""
        lines, descriptions = [], []
        for extension in extensions or extensions_for(self.version):
            index = put_extension(self.layout, extension, self.version, self.work)
            tag = extension.tag(parse_version(self.version))
            path = f"siderolabs/{extension.name}"
            self._name(index, path, tag)
            line = f"{self.prefix}/{path}:{tag}@{index['digest']}"
            lines.append(line)
            descriptions.append(
                f"{line}:\n  author: local-imager lab\n"
                f"  description: |\n    {extension.description}\n"
            )
        self._put_catalogue(
            "siderolabs/extensions",
            [
                Entry("image-digests", ("\n".join(lines) + "\n").encode()),
                Entry("descriptions.yaml", "".join(descriptions).encode()),
            ],
        )

    def put_overlays(self) -> None:
        """The overlay images and the catalogue that lists their overlays."""
        _, minor, patch = parse_version(self.version)
        tag = f"v0.{minor}.{patch}"
        text = "overlays:\n"
        for image, names in OVERLAYS.items():
            index = put_overlay(self.layout, image, self.version, self.work)
            self._name(index, image, tag)
            for name in names:
                text += (
                    f"  - name: {name}\n    image: {self.prefix}/{image}:{tag}\n"
                    f"    digest: {index['digest']}\n"
                )
        self._put_catalogue("siderolabs/overlays", [Entry("overlays.yaml", text.encode())])

    def _put_catalogue(self, path: str, entries: list[Entry]) -> None:
        name = f"{self.prefix}/{path}-{self.version}".replace("/", "_")
        layer = write_layer(self.work / f"{name}.tar.gz", entries)
        children = [self.layout.put_image(arch, [layer]) for arch in ARCHITECTURES]
        self._name(self.layout.put_index(children), path, self.version)

    def put_all(self) -> None:
        """Every image of the version."""
        self.put_imager()
        self.put_installer()
        self.put_extensions()
        self.put_overlays()


def image_names(layout: Layout) -> str:
    """Return names and digests as JSON text, for step keys and the record."""
    return json.dumps({name: item["digest"] for name, item in sorted(layout.named().items())})
