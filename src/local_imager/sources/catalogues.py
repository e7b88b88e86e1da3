"""Reading the catalogues of a version, and the profile of an overlay, out of verified images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from local_imager.errors import SourceError
from local_imager.profile.model import Catalogue, CatalogueOverlay, Requirement
from local_imager.profile.quirks import Feature, Quirks
from local_imager.profile.version import TalosVersion
from local_imager.sources.catalog import (
    EXTENSION_FILES,
    MAX_CATALOGUE_BYTES,
    OVERLAY_FILES,
    parse_extensions,
    parse_overlays,
)
from local_imager.sources.imagefiles import needed_file, read_files
from local_imager.sources.verify import VerifiedImage
from local_imager.store.store import Store

EXTENSIONS: Final = "siderolabs/extensions"
OVERLAYS: Final = "siderolabs/overlays"
# An overlay's profile document has a dozen lines.
MAX_PROFILE_BYTES: Final = 256 * 1024

ObtainAll = Callable[[Iterable[Requirement]], Mapping[Requirement, VerifiedImage]]


def read_catalogue(
    store: Store,
    registry: str,
    version: TalosVersion,
    obtain_all: ObtainAll,
    *,
    whole: bool = True,
) -> Catalogue:
    """Return the extensions and overlays of a version, read from images that were obtained.

    Not ``whole``: the names and digests of the extensions alone, which are read from lines.
    Raises what obtaining raises, and :class:`SourceError` for catalogues that cannot be read.
    """
    wanted = catalogue_requirements(version)[: None if whole else 1]
    images = obtain_all(wanted)
    names = EXTENSION_FILES if whole else EXTENSION_FILES[:1]
    files = read_files(store, images[wanted[0]], names, max_bytes=MAX_CATALOGUE_BYTES)
    extensions = parse_extensions(
        needed_file(files, "image-digests", wanted[0]),
        files.get("descriptions.yaml", b""),
        registry,
    )
    catalogue = Catalogue(version, extensions)
    if len(wanted) > 1:
        files = read_files(store, images[wanted[1]], OVERLAY_FILES, max_bytes=MAX_CATALOGUE_BYTES)
        text = needed_file(files, "overlays.yaml", wanted[1])
        catalogue = replace(catalogue, overlays=parse_overlays(text, registry))
    return catalogue


def catalogue_requirements(version: TalosVersion) -> tuple[Requirement, ...]:
    """Return the images that a version's catalogue is read from, that of the extensions first."""
    extensions = Requirement("extensions-catalogue", EXTENSIONS, str(version))
    if not Quirks.of(version).has(Feature.OVERLAY):
        return (extensions,)
    return (extensions, Requirement("overlays-catalogue", OVERLAYS, str(version)))


def overlay_requirement(overlay: CatalogueOverlay) -> Requirement:
    """Return the image that an overlay's profile document is in."""
    return Requirement("overlay", overlay.image, overlay.reference.tag, overlay.digest)


def read_overlay_profile(store: Store, overlay: CatalogueOverlay, image: VerifiedImage) -> str:
    """Return the text of an overlay's profile document, empty when its image has none."""
    name = f"profiles/{overlay.name}.yaml"
    files = read_files(store, image, (name,), max_bytes=MAX_PROFILE_BYTES)
    try:
        return files.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} of {image.reference} is not UTF-8") from error
