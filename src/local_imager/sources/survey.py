"""Looking at an image without fetching it: verified, and how big it is for each architecture.

Reads the image's index, its signatures and the manifests of its children; no layer is touched, so
a lock over many versions costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from local_imager.errors import NotFound, SourceError
from local_imager.events import EventSink, step
from local_imager.oci.model import Descriptor, Digest, Index, Manifest, Reference, parse_manifest
from local_imager.oci.source import ImageSource
from local_imager.profile.model import ARCHES
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import VerifiedImage, verify_image

# The key of an image that is a single manifest, which says nothing of an architecture.
ANY_ARCH: Final = "any"


@dataclass(frozen=True, slots=True)
class SurveyedImage:
    """A verified image and the bytes that a fetch of it brings, by architecture.

    ``size_bytes`` counts manifest, config and layers; its key is ``any`` for a single manifest.
    """

    image: VerifiedImage
    size_bytes: Mapping[str, int]


def survey_image(
    places: Sequence[ImageSource],
    reference: Reference,
    descriptor: Descriptor,
    policy: TrustPolicy,
    sink: EventSink,
) -> SurveyedImage:
    """Verify an image as the first place has it, and measure it with what all places have.

    Raises what :func:`verify_image` raises, and :class:`SourceError` for malformed manifests.
    """
    with step(sink, "verify", str(reference)):
        verified = verify_image(places[0], reference, descriptor, policy, sink=sink)
    return SurveyedImage(verified, measure(places, reference, descriptor.digest))


def measure(
    places: Sequence[ImageSource], reference: Reference, digest: Digest
) -> Mapping[str, int]:
    """Return the size in bytes for each architecture of which a place has the manifest.

    Raises :class:`NotFound` when no place has the image itself.
    """
    top = read_manifest(places, reference, digest)
    if isinstance(top, Manifest):
        return {ANY_ARCH: _size(top)}
    return dict(sorted(_sizes(places, reference, top)))


def _sizes(
    places: Sequence[ImageSource], reference: Reference, top: Index
) -> Iterator[tuple[str, int]]:
    for arch in ARCHES:
        entry = top.for_platform("linux", arch)
        if entry is None:
            continue
        try:
            child = read_manifest(places, reference, entry.digest)
        except NotFound:  # a store keeps only the architectures that were fetched
            continue
        if not isinstance(child, Manifest):
            raise SourceError(f"{reference} is an index of indexes", code="malformed")
        yield arch, _size(child)


def read_manifest(
    places: Sequence[ImageSource], reference: Reference, digest: Digest
) -> Manifest | Index:
    """Return a manifest from the first place that has it, its bytes checked.

    Raises :class:`NotFound` when no place has it, :class:`SourceError` for other bytes.
    """
    missing: NotFound | None = None
    for place in places:
        try:
            raw = place.manifest(reference, digest)
        except NotFound as error:
            missing = error
            continue
        if Digest.of(raw.untrusted_data) != digest:
            raise SourceError(f"{place.location} answers other bytes for {digest}")
        return parse_manifest(raw.untrusted_data, raw.media_type, str(reference))
    raise missing or NotFound(f"there is no place to read {reference} from")


def _size(manifest: Manifest) -> int:
    blobs = {blob.digest: blob.size_bytes for blob in (manifest.config, *manifest.layers)}
    return len(manifest.raw) + sum(blobs.values())
