"""Images in an archive: what ``docker save`` and the imager write, OCI layouts, and OVA.

Documents are read and their digests compared; layers are handed out as they lie there, packed or
not, and nobody unpacks one here.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from local_imager.events import printable
from local_imager.formats.entries import Entry, Volume
from local_imager.formats.source import FormatError, Source

# Configurations of a hundred layers have some 50 kB.
MAX_DOCUMENT_BYTES: Final = 1 << 20
MAX_IMAGES: Final = 64
# Documents of a layout, and what its indexes list and it does not hold.
_MAX_LISTED: Final = 1024
# overlayfs takes 128 at most, older stores 127.
MAX_LAYERS: Final = 256
_MAX_INDEX_DEPTH: Final = 3
_MAX_LINKS: Final = 4
_DOCKER_MANIFEST: Final = "manifest.json"
_OCI_INDEX: Final = "index.json"
_OCI_LAYOUT: Final = "oci-layout"
# containerd and docker put the whole name here, the specification's own annotation has the tag.
_MANIFEST: Final = frozenset({"schemaVersion", "mediaType", "config", "layers"})
_NAME_ANNOTATIONS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ArchivedLayer:
    """One layer as it lies in the archive.

    ``digest`` is what the manifest claims of these bytes (``sha256:…``), empty in a
    docker-archive; ``diff_id`` is what the configuration claims of the unpacked ones.
    """

    path: str
    size_bytes: int
    digest: str
    diff_id: str
    source: Source


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image. ``config`` is the configuration document as it is written.

    ``names`` are the tags that it gets when it is loaded. ``manifest_digest`` is empty in a pure
    docker-archive, whose manifest is not the image's own. ``manifest_rest`` is a digest of what the
    manifest says beside configuration and layers (annotations, say), empty for nothing.
    """

    names: tuple[str, ...]
    architecture: str
    os: str
    created: str
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...]
    config: bytes
    config_digest: str
    manifest_digest: str
    layers: tuple[ArchivedLayer, ...]
    manifest_rest: str = ""


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """All images of an archive. ``forms`` names the ways to read it: ``docker``, ``oci``.

    ``missing`` are digests that an index lists and the archive does not hold, as when only one of
    several platforms was saved.
    """

    forms: tuple[str, ...]
    images: tuple[ArchivedImage, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ova:
    """A virtual appliance: the descriptor (OVF), the disks, and the digests that it claims."""

    descriptor: Entry
    disks: tuple[Entry, ...]
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def image_archive_of(volume: Volume) -> ImageArchive | None:
    """Tell which images an archive or folder holds; None when it is not meant to hold any.

    Both forms side by side over the same blobs are one image with all its names. Raises
    :class:`FormatError` for documents that are broken or do not have their digest.
    """
    files = _Files(volume)
    forms = []
    images: list[ArchivedImage] = []
    reading = _OciReading(files)
    if files.has(_OCI_INDEX) and files.has(_OCI_LAYOUT):
        forms.append("oci")
        images = reading.images()
    if files.has(_DOCKER_MANIFEST):
        saved = list(_docker_images(files))
        forms.insert(0, "docker")
        images = _together(images, saved)
    if not forms:
        return None
    return ImageArchive(tuple(forms), tuple(images), tuple(reading.missing))


def ova_of(volume: Volume) -> Ova | None:
    """Tell what a virtual appliance holds; None when the archive is none.

    The descriptor is the first member of one (DSP0243, chapter 2); ``*.mf`` lists digests.
    """
    files = [entry for entry in volume.entries if entry.kind == "file"]
    if not files or not files[0].path.endswith(".ovf"):
        return None
    digests: dict[str, str] = {}
    for entry in files:
        if entry.path.endswith(".mf"):
            for line in _content(volume, entry).decode("utf-8", "replace").splitlines()[:64]:
                stated, equals, value = line.partition("=")
                algorithm, bracket, name = stated.strip().rstrip(")").partition("(")
                if equals and bracket:
                    digests[printable(name)] = printable(
                        f"{algorithm.strip().lower()}:{value.strip().lower()}", limit=200
                    )
    disks = tuple(entry for entry in files if entry.path.endswith((".vmdk", ".vhd", ".qcow2")))
    return Ova(files[0], disks, MappingProxyType(digests))


def _content(volume: Volume, entry: Entry) -> bytes:
    if entry.size_bytes > MAX_DOCUMENT_BYTES:
        raise FormatError(f"{printable(entry.path)} has {entry.size_bytes} bytes")
    return volume.open(entry).read(0, entry.size_bytes)


class _Files:
    """Files of a volume by path; links inside of it are followed, as older ``docker save`` has."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._entries = {entry.path: entry for entry in volume.entries}

    def has(self, path: str) -> bool:
        """Whether this is a file of the volume itself."""
        entry = self._entries.get(path)
        return entry is not None and entry.kind == "file"

    def open(self, path: str) -> Source:
        """Return the content of a file or of what a link means."""
        name = printable(path, limit=200)
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(path)
            if entry is None:
                raise FormatError(f"the archive does not hold {name}")
            if entry.kind != "link":
                return self._volume.open(entry)
            target = entry.link_target or ""
            folder = "" if "hard-link" in entry.attributes else posixpath.dirname(path)
            path = posixpath.normpath(posixpath.join(folder, target))
        raise FormatError(f"the archive has too many links at {name}")

    def bytes(self, path: str) -> bytes:
        """Return a document."""
        source = self.open(path)
        if source.size_bytes > MAX_DOCUMENT_BYTES:
            raise FormatError(f"the document {printable(path, limit=200)} is too large")
        return source.read(0, source.size_bytes)


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON") from error


def _object(value: Any, what: str) -> Document:
    if not isinstance(value, dict):
        raise FormatError(f"{what} does not have the shape that one has")
    return value


def _list(value: Any, what: str, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"{what} does not have the shape that one has")
    return value


def _string(value: Any) -> str:
    return printable(value) if isinstance(value, str) else ""


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_string(one) for one in value[:1024]) if isinstance(value, list) else ()


def _digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _docker_images(files: _Files) -> Iterator[ArchivedImage]:
    what = "the archive's manifest.json"
    for item in _list(_json(files.bytes(_DOCKER_MANIFEST), what), what, MAX_IMAGES):
        entry = _object(item, what)
        paths = _list(entry.get("Layers"), what, MAX_LAYERS)
        if not isinstance(entry.get("Config"), str) or not all(isinstance(p, str) for p in paths):
            raise FormatError(f"{what} does not have the shape that one has")
        config = files.bytes(posixpath.normpath(entry["Config"]))
        sources = [(posixpath.normpath(path), "") for path in paths]
        yield _image(files, config, _strings(entry.get("RepoTags")), "", sources)


class _OciReading:
    """Walks the indexes of a layout; each blob is taken once."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._seen: set[str] = set()
        self.missing: list[str] = []
        self._images: list[ArchivedImage] = []

    def images(self) -> list[ArchivedImage]:
        """Return the images that the layout lists and holds, in order."""
        what = "the layout's index.json"
        self._index(_object(_json(self._files.bytes(_OCI_INDEX), what), what), (), 0)
        return self._images

    def _index(self, index: Document, names: tuple[str, ...], depth: int) -> None:
        if depth > _MAX_INDEX_DEPTH:
            raise FormatError("the layout has indexes inside of indexes, too deep")
        what = "an index of the layout"
        for item in _list(index.get("manifests"), what, 4 * MAX_IMAGES):
            descriptor = _object(item, what)
            digest = descriptor.get("digest")
            path = _blob_path(digest)
            if digest in self._seen:
                continue
            if len(self._seen) + len(self.missing) >= _MAX_LISTED:
                raise FormatError(f"the layout lists more than {_MAX_LISTED} documents")
            if not self._files.has(path):
                self.missing.append(str(digest))
                continue
            self._seen.add(str(digest))
            data = self._files.bytes(path)
            if _digest_of(data) != digest:
                raise FormatError(f"a document of the layout does not have its digest ({digest})")
            document = _object(_json(data, "a manifest of the layout"), "a manifest of the layout")
            named = _names(descriptor.get("annotations")) or names
            if "manifests" in document:
                self._index(document, named, depth + 1)
            elif "layers" in document:
                self._image(document, named, str(digest))

    def _image(self, manifest: Document, names: tuple[str, ...], digest: str) -> None:
        what = "a manifest of the layout"
        if len(self._images) >= MAX_IMAGES:
            raise FormatError(f"the layout holds more than {MAX_IMAGES} images")
        layers = [
            (_blob_path(_object(one, what).get("digest")), str(one["digest"]))
            for one in _list(manifest.get("layers"), what, MAX_LAYERS)
        ]
        claimed = _object(manifest.get("config"), what).get("digest")
        absent = [one for path, one in layers if not self._files.has(path)]
        if absent or not self._files.has(_blob_path(claimed)):
            self.missing += absent or [str(claimed)]
            return
        config = self._files.bytes(_blob_path(claimed))
        if _digest_of(config) != claimed:
            raise FormatError(f"a document of the layout does not have its digest ({claimed})")
        image = _image(self._files, config, names, digest, layers)
        self._images.append(replace(image, manifest_rest=_rest_of(manifest)))


def _rest_of(manifest: Document) -> str:
    """Return a digest of the manifest without what facts and layers of the image tell."""
    described = [manifest["config"], *manifest["layers"]]
    plain = ("mediaType", "digest", "size")
    more = [{key: one[key] for key in one if key not in plain} for one in described]
    own = {key: manifest[key] for key in manifest if key not in _MANIFEST}
    if not own and not any(more):
        return ""
    return _digest_of(json.dumps([own, more], sort_keys=True).encode())


def _blob_path(digest: Any) -> str:
    if not isinstance(digest, str) or not digest.startswith("sha256:"):
        raise FormatError("a descriptor of the layout has no SHA-256 digest")
    value = digest.removeprefix("sha256:")
    if len(value) != 64 or not all(character in "0123456789abcdef" for character in value):
        raise FormatError("a descriptor of the layout has no SHA-256 digest")
    return f"blobs/sha256/{value}"


def _names(annotations: Any) -> tuple[str, ...]:
    if not isinstance(annotations, dict):
        return ()
    found = (_string(annotations.get(key)) for key in _NAME_ANNOTATIONS)
    return next(((name,) for name in found if name), ())


def _image(
    files: _Files,
    config: bytes,
    names: tuple[str, ...],
    manifest_digest: str,
    layers: list[tuple[str, str]],
) -> ArchivedImage:
    what = "the configuration of an image"
    document = _object(_json(config, what), what)
    inner = document.get("config")
    settings = inner if isinstance(inner, dict) else {}
    labels = settings.get("Labels")
    pairs = list(labels.items())[:1024] if isinstance(labels, dict) else []
    root = document.get("rootfs")
    ids = _strings(root.get("diff_ids")) if isinstance(root, dict) else ()
    found = []
    for number, (path, digest) in enumerate(layers):
        source = files.open(path)
        diff_id = ids[number] if number < len(ids) else ""
        found.append(ArchivedLayer(printable(path), source.size_bytes, digest, diff_id, source))
    return ArchivedImage(
        names=names,
        architecture=_string(document.get("architecture")),
        os=_string(document.get("os")),
        created=_string(document.get("created")),
        labels=MappingProxyType({printable(key): _string(value) for key, value in pairs}),
        entrypoint=_strings(settings.get("Entrypoint")),
        config=config,
        config_digest=_digest_of(config),
        manifest_digest=manifest_digest,
        layers=tuple(found),
    )


def _together(oci: list[ArchivedImage], docker: list[ArchivedImage]) -> list[ArchivedImage]:
    """Return the images of both forms; one with the same configuration gets all names."""
    left = {image.config_digest: image for image in docker}
    images = []
    for image in oci:
        same = left.pop(image.config_digest, None)
        names = image.names if same is None else same.names or image.names
        images.append(replace(image, names=names))
    return images + list(left.values())
