"""Archives as parts: plain tar, container images (an installer is one), virtual appliances."""

from __future__ import annotations

from types import MappingProxyType

from local_imager.deliver.inspect.limits import OutOfBudget
from local_imager.deliver.inspect.parts import Fact, Part
from local_imager.deliver.inspect.volumerest import tar_rest
from local_imager.deliver.inspect.volumes import Names, clean, volume_parts
from local_imager.deliver.inspect.walking import Inside, Walk
from local_imager.formats.archive import ArchivedImage, ArchivedLayer, image_archive_of, ova_of
from local_imager.formats.packing import HEAD_BYTES, packing_of, unpack
from local_imager.formats.source import BytesSource, FormatError, Source
from local_imager.formats.tar import read_tar

_MAX_LABELS = 100


def open_tar(walk: Walk, source: Source) -> Inside:
    """Return what a tar archive holds: images, an appliance's disks, or just files."""
    volume = read_tar(source)
    images = image_archive_of(volume)
    if images is not None:
        facts: dict[str, Fact] = {"forms": images.forms}
        if images.missing:
            facts["missing"] = images.missing
        if len(images.images) == 1:
            inside = _image(walk, images.images[0])
            return Inside(dict(inside.facts) | facts, inside.children, kind="oci-image")
        names = Names()
        parts = [_named_image(walk, image, names) for image in images.images]
        return Inside(facts, tuple(parts), kind="oci-image")
    if ova_of(volume) is not None:
        return Inside(children=volume_parts(walk, volume), kind="ova")
    return Inside({"rest": tar_rest(source, volume)}, volume_parts(walk, volume), kind="tar")


def _named_image(walk: Walk, image: ArchivedImage, names: Names) -> Part:
    name = names.unique(clean(next(iter(image.names), "image")))
    with walk.deeper():
        inside = _image(walk, image)
    return walk.leaf(
        name, "oci-image", facts=MappingProxyType(dict(inside.facts)), children=inside.children
    )


def _image(walk: Walk, image: ArchivedImage) -> Inside:
    facts: dict[str, Fact] = {
        "arch": image.architecture,
        "os": image.os,
        "created": image.created,
        "names": image.names,
        "entrypoint": image.entrypoint,
        "config_digest": image.config_digest,
        "manifest_digest": image.manifest_digest,
        "manifest_rest": image.manifest_rest,
    }
    labels = sorted(image.labels.items())[:_MAX_LABELS]
    facts |= {f"label {clean(key)}": clean(value) for key, value in labels}
    config = walk.part(BytesSource(image.config), "configuration", plain="document")
    layers = [_layer(walk, layer, number) for number, layer in enumerate(image.layers, 1)]
    kept = {key: value for key, value in facts.items() if value not in ("", ())}
    return Inside(kept, (config, *layers))


def _layer(walk: Walk, layer: ArchivedLayer, number: int) -> Part:
    head = layer.source.read(0, min(HEAD_BYTES, layer.source.size_bytes))
    packing = packing_of(head)
    facts: dict[str, Fact] = {"packing": packing or "none"}
    if layer.diff_id:
        facts["diff_id"] = layer.diff_id
    inside = Inside(facts)
    try:
        with walk.deeper():
            if packing:
                chunks = unpack(layer.source, packing, max_bytes=walk.reader_bytes)
                with walk.unpacked(chunks) as content:
                    children = _members(walk, content, facts)
            else:
                children = _members(walk, layer.source, facts)
        inside = Inside(facts, children)
    except OutOfBudget:
        raise
    except FormatError as error:
        inside = Inside(facts, unread=error.message)
    return walk.made(layer.source, f"layer {number}", "layer", inside)


def _members(walk: Walk, content: Source, facts: dict[str, Fact]) -> tuple[Part, ...]:
    volume = read_tar(content)
    facts["rest"] = tar_rest(content, volume)
    return volume_parts(walk, volume)
