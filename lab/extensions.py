"""The lab's system extensions: one that shows itself at boot, and labelled stand-ins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.archives import Entry, Layer, noise, write_layer
from lab.initramfs import EXTENSION_SCRIPTS
from lab.oci import Descriptor, Layout
from lab.place import ARCHITECTURES, parse_version

USR_MERGE = (1, 10, 0)
"""From this version on firmware lies in /usr/lib/firmware, before in /lib/firmware."""

Files = Callable[[str], list[Entry]]


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension of the catalogue, valid for versions `since` <= version < `until`.

    `tag` makes the image tag from a version; `files` makes what lies in its rootfs.
    """

    name: str
    tag: Callable[[tuple[int, int, int]], str]
    files: Files
    description: str
    since: tuple[int, int, int] = (0, 0, 0)
    until: tuple[int, int, int] = (99, 0, 0)
    ballast_bytes: int = 0


def _date_tag(version: tuple[int, int, int]) -> str:
    return f"{2012 + version[1]}{version[2] + 1:02d}01.0"


def _hello(version: str) -> list[Entry]:
    script = f"""\
echo "LAB-EXTENSION hello-world-service says: hello from a system extension for {version}"
service=usr/local/etc/containers/hello-world.yaml
[ -f "$service" ] && echo "LAB-EXTENSION hello-world-service brought $(head -n 1 "$service")"
"""
    service = "name: hello-world\ncontainer:\n  entrypoint: ./hello-world\nrestart: always\n"
    return [
        Entry(f"{EXTENSION_SCRIPTS}/hello-world-service", script.encode(), mode=0o755),
        Entry("usr/local/etc/containers/hello-world.yaml", service.encode()),
    ]


def _stand_in(name: str) -> Files:
    def files(version: str) -> list[Entry]:
        text = f"{name}: lab stand-in for Talos {version}; it holds no program\n"
        return [Entry(f"usr/local/share/{name}/STAND-IN", text.encode())]

    return files


def _microcode(version: str) -> list[Entry]:
    # Upstream ships CPU microcode as firmware; the imager moves it to the front of the initramfs.
    # The content is no microcode, and the kernel passes it over.
    prefix = "usr/lib" if parse_version(version) >= USR_MERGE else "lib"
    content = b"lab stand-in, not microcode\n" + noise("amd-ucode", 4096)
    path = f"{prefix}/firmware/amd-ucode/microcode_amd_fam17h.bin"
    return [Entry(path, content), *_stand_in("amd-ucode")(version)]


_STAND_IN = "lab stand-in: carries the name of the official extension and none of its programs"

EXTENSIONS = (
    Extension(
        "hello-world-service",
        lambda v: f"v{v[0]}.{v[1]}.{v[2]}",
        _hello,
        "This system extension prints a greeting on the console when the lab's image boots.",
    ),
    Extension("gvisor", _date_tag, _stand_in("gvisor"), _STAND_IN),
    Extension(
        "qemu-guest-agent",
        lambda v: f"9.{v[1]}.{v[2]}",
        _stand_in("qemu-guest-agent"),
        _STAND_IN,
    ),
    Extension("iscsi-tools", lambda v: f"v0.{v[1]}.{v[2]}", _stand_in("iscsi-tools"), _STAND_IN),
    Extension(
        "util-linux-tools", lambda v: f"2.{v[1]}.{v[2]}", _stand_in("util-linux-tools"), _STAND_IN
    ),
    Extension("amd-ucode", _date_tag, _microcode, _STAND_IN),
    Extension("i915-ucode", _date_tag, _stand_in("i915-ucode"), _STAND_IN, until=USR_MERGE),
    Extension("i915", _date_tag, _stand_in("i915"), _STAND_IN, since=USR_MERGE),
    Extension(
        "amdgpu-firmware",
        _date_tag,
        _stand_in("amdgpu-firmware"),
        f"{_STAND_IN}, with 40 MB of noise",
        until=USR_MERGE,
        ballast_bytes=40_000_000,
    ),
    Extension(
        "amdgpu",
        _date_tag,
        _stand_in("amdgpu"),
        f"{_STAND_IN}, with 40 MB of noise",
        since=USR_MERGE,
        ballast_bytes=40_000_000,
    ),
    Extension(
        "nut-client", lambda v: f"2.8.{v[1]}", _stand_in("nut-client"), _STAND_IN, since=(1, 12, 0)
    ),
)
"""Names and renamings are upstream's: i915-ucode became i915, amdgpu-firmware became amdgpu."""


def extensions_for(version: str) -> list[Extension]:
    """Return the extensions that the catalogue of a version lists."""
    number = parse_version(version)
    return [extension for extension in EXTENSIONS if extension.since <= number < extension.until]


def manifest_of(extension: Extension, version: str) -> str:
    """Return the manifest.yaml of an extension image."""
    return f"""\
version: v1alpha1
metadata:
  name: {extension.name}
  version: {extension.tag(parse_version(version))}
  author: local-imager lab
  description: |
    {extension.description}
  compatibility:
    talos:
      version: ">= v1.0.0"
"""


def put_extension(layout: Layout, extension: Extension, version: str, work: Path) -> Descriptor:
    """Store an extension as a multi-architecture image and return the index."""
    children = []
    for arch in ARCHITECTURES:
        entries = [Entry("manifest.yaml", manifest_of(extension, version).encode())]
        files = extension.files(version)
        if extension.ballast_bytes:
            ballast = noise(f"extension {arch}", extension.ballast_bytes)
            files.append(Entry(f"usr/local/share/{extension.name}/ballast", ballast))
        platform = f"{extension.name} {arch}\n".encode()
        files.append(Entry(f"usr/local/share/{extension.name}/ARCH", platform))
        entries.append(Entry("rootfs"))
        entries += [
            Entry(f"rootfs/{item.path}", item.content, item.mode, item.link_target)
            for item in files
        ]
        layers: list[Layer] = [
            write_layer(work / f"{extension.name}-{version}-{arch}.tar.gz", entries, level=1)
        ]
        children.append(layout.put_image(arch, layers))
    return layout.put_index(children)
