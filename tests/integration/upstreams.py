"""Upstreams that are not as they should be: copies of the lab with a fault, and a fake imager."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

from local_imager.oci.layout import Layout
from local_imager.oci.model import (
    MEDIA_CONFIG,
    MEDIA_LAYER_GZIP,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Platform,
)
from tests.labfolder import PREFIX, Lab, linked_copy
from tests.unit.sources.forge import Forge, Signing, as_json

IMAGER = f"{PREFIX}/siderolabs/imager"


def settings_file(folder: Path, source: Path | str, key: Path | Signing, registry: str) -> Path:
    """Write settings that name an upstream and trust one key for all of it."""
    text = json.dumps(key.pem) if isinstance(key, Signing) else json.dumps(str(key))
    path = folder / "settings.toml"
    path.write_text(
        f'[upstream]\nregistry = "{registry}"\nsource = "{source}"\n\n'
        f'[[trust]]\npattern = "{registry}/**"\nkey = {text}\n'
    )
    return path


def faulty_copy(lab: Lab, folder: Path, spoil: Callable[[Layout], None]) -> Path:
    """Return a copy of the lab's layout with a fault of somebody's making."""
    copy = linked_copy(lab.upstream, folder / "upstream")
    spoil(Layout.open(copy))
    return copy


def newest_imager(layout: Layout) -> Descriptor:
    """Return the index of the newest imager."""
    found = layout.resolve(f"{IMAGER}:v1.13.0")
    assert found is not None
    return found


def a_layer(layout: Layout) -> Descriptor:
    """Return a layer of the newest imager for amd64."""
    index = json.loads(layout.blob_path(newest_imager(layout).digest).read_bytes())
    child = Digest.parse(index["manifests"][0]["digest"])
    layer = json.loads(layout.blob_path(child).read_bytes())["layers"][-1]
    return Descriptor(layer["mediaType"], Digest.parse(layer["digest"]), layer["size"])


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file by a changed one under the same name; other links of it stay as they are."""
    data = change(path.read_bytes())
    path.unlink()
    path.write_bytes(data)


def flip_a_bit(data: bytes) -> bytes:
    """Change one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def unsigned(layout: Layout) -> None:
    """Take the imager's signature away."""
    layout.remove_ref(f"{IMAGER}:sha256-{newest_imager(layout).digest.hex}")


def signed_for_another(layout: Layout) -> None:
    """Give the imager the (valid) signature of another image."""
    other = layout.resolve(f"{PREFIX}/siderolabs/extensions:v1.13.0")
    assert other is not None
    signature = layout.resolve(f"{PREFIX}/siderolabs/extensions:sha256-{other.digest.hex}")
    assert signature is not None
    layout.set_ref(f"{IMAGER}:sha256-{newest_imager(layout).digest.hex}", signature)


def tampered_layer(layout: Layout) -> None:
    """Change one bit of a layer."""
    rewrite(layout.blob_path(a_layer(layout).digest), flip_a_bit)


def truncated_layer(layout: Layout) -> None:
    """Cut a layer short."""
    rewrite(layout.blob_path(a_layer(layout).digest), lambda data: data[: len(data) // 2])


def tampered_index(layout: Layout) -> None:
    """Change one bit of the index that is signed."""
    rewrite(layout.blob_path(newest_imager(layout).digest), flip_a_bit)


def missing_layer(layout: Layout) -> None:
    """Take a layer away."""
    layout.blob_path(a_layer(layout).digest).unlink()


FAKE_IMAGER = """\
#!/bin/busybox sh
# Stands where the imager should: it does what the profile's kernel arguments ask for.
profile=$(/bin/busybox cat)
file=/out/files/cmdline-metal-amd64
case "$profile" in
*behave=fail*) echo "$profile" >&2; echo "it is broken beyond repair" >&2; exit 3 ;;
*behave=hang*) echo "waiting for nothing"; /bin/busybox sleep 600 ;;
*behave=link*) /bin/busybox ln -s /etc/passwd "$file" ;;
*behave=other*) echo one > "$file"; echo two > /out/files/metal-amd64.iso ;;
*behave=folder*) /bin/busybox mkdir "$file" ;;
*behave=pipe*) /bin/busybox mkfifo "$file" ;;
*behave=empty*) : > "$file" ;;
*behave=nothing*) exit 0 ;;
*behave=escape*) printf 'bell \\007 and \\033[31mcolour\\n'; exit 4 ;;
*behave=shout*) /bin/busybox yes shouting | /bin/busybox head -c 5000000; exit 5 ;;
*) echo "$profile"; echo "talos.platform=metal" > "$file" ;;
esac
"""


def fake_upstream(folder: Path, busybox: bytes, key: Signing) -> Path:
    """Make a layout with a fake imager v1.13.0 for amd64 that is signed with the key."""
    forge = Forge(folder / "fake-upstream", PREFIX)
    files = {
        "bin/busybox": (busybox, 0o755),
        "bin/imager": (FAKE_IMAGER.encode(), 0o755),
        "usr/install/amd64/vmlinuz": (b"not a kernel", 0o644),
        "usr/install/amd64/initramfs.xz": (b"not an initramfs", 0o644),
    }
    plain = _tar(files)
    layer = forge.layout.put_bytes(gzip.compress(plain, mtime=0), MEDIA_LAYER_GZIP)
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(plain))]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    body = {
        "schemaVersion": 2,
        "mediaType": MEDIA_MANIFEST,
        "config": forge.layout.put_bytes(as_json(config), MEDIA_CONFIG).as_dict(),
        "layers": [layer.as_dict()],
    }
    platform = Platform("linux", "amd64")
    manifest = forge.layout.put_bytes(as_json(body), MEDIA_MANIFEST, platform=platform)
    top = forge.index(manifest)
    forge.layout.set_ref(str(forge.reference("siderolabs/imager", "v1.13.0")), top)
    forge.sign_bundle("siderolabs/imager", top, key.bundle(top.digest))
    return forge.layout.path


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (data, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def seeded_store(seed: Path, target: Path) -> Path:
    """Copy a store by hard links, without its locks and what is under way in it."""
    shutil.copytree(
        seed,
        target,
        copy_function=_link_blob,
        ignore=shutil.ignore_patterns("locks", "staging", "unverified", "work"),
    )
    return target


def _link_blob(source: str, target: str) -> str:
    if "/blobs/" in source:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
    return target
