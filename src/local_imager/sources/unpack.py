"""Taking named files out of a verified image's layers, without unpacking the image.

Nothing is written under a name that an archive chose: contents go to numbered files in a scratch
directory. Layers are read bottom to top as the OCI image spec's layer rules say: upper entries
win, ``.wh.name`` hides a lower entry, ``.wh..wh..opq`` all lower ones of a directory. Links are
followed inside the image only, as if it were the root directory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from local_imager.errors import SourceError
from local_imager.oci.durable import explained
from local_imager.sources.decompress import BoundedStream
from local_imager.sources.tarstream import TarMember, TarStream, malformed_tar

# A Debian root file system has 20,000 entries, the official imager fewer.
MAX_MEMBERS: Final = 500_000
# What Linux allows (ELOOP); a loop ends here.
MAX_LINKS: Final = 40
# The largest boot asset is an initramfs of about 90 MB.
MAX_FILE_BYTES: Final = 2 * 1024**3
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class _Node:
    """The uppermost entry of a path: which layer it is in, its kind, and where it links to."""

    layer: int
    kind: str
    link: str = ""
    spool: Path | None = None


@dataclass(slots=True)
class _Tree:
    """What the layers say about names; contents only of the files that were asked for."""

    nodes: dict[str, _Node] = field(default_factory=dict)
    whiteouts: dict[str, int] = field(default_factory=dict)
    opaque: dict[str, int] = field(default_factory=dict)

    def visible(self, path: str) -> _Node | None:
        """Return the node unless an upper layer hid it or one of its parents."""
        node = self.nodes.get(path)
        if node is None or self.whiteouts.get(path, -1) > node.layer:
            return None
        parent = path
        while parent:
            parent = parent.rpartition("/")[0]
            hidden = max(self.opaque.get(parent, -1), self.whiteouts.get(parent, -1))
            above = self.nodes.get(parent)
            replaced = above is not None and above.kind != "directory" and above.layer > node.layer
            if hidden > node.layer or replaced:
                return None
        return node


def extract_files(
    layers: Sequence[Path],
    wanted: Collection[str],
    scratch: Path,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Mapping[str, Path]:
    """Copy the wanted files (paths below the image's root, no leading slash) into ``scratch``.

    ``layers`` are blob files, lowest first, already checked against their digests. Returns the
    files that exist, by the path asked for. Raises :class:`SourceError` for an archive that is
    broken, hostile or over a ceiling, :class:`~local_imager.errors.StoreError`
    when ``scratch`` cannot be written.
    """
    with explained("take files out of an image"):
        tree = _read_layers(layers, frozenset(wanted), scratch, max_file_bytes)
        resolved = {path: _resolve(tree, path) for path in wanted}
        targets = {path: target for path, target in resolved.items() if target}
        _spool_link_targets(tree, layers, frozenset(targets.values()), scratch, max_file_bytes)
    found = {}
    for path, target in targets.items():
        spool = tree.nodes[target].spool
        if spool is not None:
            found[path] = spool
    return found


def _read_layers(
    layers: Sequence[Path], wanted: frozenset[str], scratch: Path, max_file_bytes: int
) -> _Tree:
    tree, members = _Tree(), 0
    for number, layer in enumerate(layers):
        with layer.open("rb") as packed:
            stream = TarStream(BoundedStream(packed, f"layer {number + 1}").read)
            for member in stream:
                members += 1
                if members > MAX_MEMBERS:
                    raise malformed_tar(f"more than {MAX_MEMBERS} entries")
                path = normalised(member.untrusted_name)
                if not path or _note_whiteout(tree, path, number):
                    continue
                spool = None
                if path in wanted and member.kind == "file":
                    spool = _spool(stream, member, scratch, max_file_bytes)
                tree.nodes[path] = _Node(number, member.kind, member.untrusted_link, spool)
    return tree


def _note_whiteout(tree: _Tree, path: str, layer: int) -> bool:
    parent, _, name = path.rpartition("/")
    if name == _OPAQUE:
        tree.opaque[parent] = layer
    elif name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        tree.whiteouts[f"{parent}/{hidden}" if parent else hidden] = layer
    else:
        return False
    return True


def normalised(untrusted_name: str) -> str:
    """Return a member's path below the root; raises for one that would lead out of it."""
    if untrusted_name.startswith("/") or "\0" in untrusted_name:
        raise malformed_tar("it names an absolute path")
    parts = [part for part in untrusted_name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise malformed_tar("it names a path that leads out of the image")
    return "/".join(parts)


def _spool(stream: TarStream, member: TarMember, scratch: Path, max_file_bytes: int) -> Path:
    if member.size_bytes > max_file_bytes:
        raise SourceError(
            f"a file of the image is larger than {max_file_bytes} bytes", code="too-large"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in scratch.iterdir())
    path = scratch / f"file-{number}"
    with path.open("xb") as out:
        for piece in stream.content():
            out.write(piece)
    return path


def _resolve(tree: _Tree, path: str) -> str:
    """Follow links from the root; return the path of a regular file, or an empty string."""
    rest, links = path.split("/"), 0
    done: list[str] = []
    while rest:
        name, rest = rest[0], rest[1:]
        if name in ("", "."):
            continue
        if name == "..":
            # At the root it stays at the root, as in a chroot.
            done = done[:-1]
            continue
        done = [*done, name]
        node = tree.visible("/".join(done))
        if node is None or node.kind not in ("symlink", "hardlink"):
            continue
        links += 1
        if links > MAX_LINKS:
            return ""
        target = node.link.split("/")
        # A hard link names a path of the image; a symbolic one starts at its own directory.
        from_root = node.kind == "hardlink" or node.link.startswith("/")
        rest, done = [*target, *rest], ([] if from_root else done[:-1])
        if len(rest) > MAX_LINKS * 64:
            return ""
    found = "/".join(done)
    node = tree.visible(found)
    return found if node is not None and node.kind == "file" else ""


def _spool_link_targets(
    tree: _Tree,
    layers: Sequence[Path],
    targets: frozenset[str],
    scratch: Path,
    max_file_bytes: int,
) -> None:
    """Read once more the layers of files that were only found through links."""
    missing = {path for path in targets if tree.nodes[path].spool is None}
    for number in sorted({tree.nodes[path].layer for path in missing}):
        with layers[number].open("rb") as packed:
            stream = TarStream(BoundedStream(packed, f"layer {number + 1}").read)
            for member in stream:
                path = normalised(member.untrusted_name)
                if path in missing and member.kind == "file":
                    if tree.nodes[path].layer == number:
                        spool = _spool(stream, member, scratch, max_file_bytes)
                        tree.nodes[path] = _Node(number, "file", "", spool)
