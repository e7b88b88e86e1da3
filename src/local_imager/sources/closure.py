"""Which images everything of a version needs: what ``sources fetch`` brings into the store."""

from __future__ import annotations

from collections.abc import Sequence

from local_imager.oci.host import host_arch
from local_imager.profile.model import Arch, Catalogue, Requirement
from local_imager.profile.quirks import Quirks
from local_imager.profile.resolve import find_extension, find_overlay
from local_imager.profile.version import TalosVersion
from local_imager.schematic.model import Schematic
from local_imager.sources.catalogues import catalogue_requirements
from local_imager.sources.upstream import IMAGER


def version_images(version: TalosVersion, arches: Sequence[Arch]) -> tuple[Requirement, ...]:
    """Return what any schematic of a version needs, the builder left out."""
    quirks, tag = Quirks.of(version), str(version)
    wanted = [Requirement("base", IMAGER, tag), *catalogue_requirements(version)]
    installer = quirks.base_installer_name
    wanted += [Requirement("base-installer", installer, tag, arch=arch) for arch in arches]
    return tuple(wanted)


def schematic_images(
    schematic: Schematic, catalogue: Catalogue, arches: Sequence[Arch]
) -> tuple[Requirement, ...]:
    """Return the extension and overlay images of a schematic.

    An overlay is needed for this host too, whose architecture its installer runs on. Raises
    :class:`PlanError` for a name that the version does not have.
    """
    wanted = []
    for name in schematic.customization.official_extensions:
        found = find_extension(catalogue, name)
        tag = found.reference.tag
        wanted += [Requirement("extension", found.name, tag, found.digest, a) for a in arches]
    if schematic.overlay.name:
        overlay = find_overlay(catalogue, schematic.overlay.name)
        tag = overlay.reference.tag
        sides = dict.fromkeys((host_arch(), *arches))
        wanted += [Requirement("overlay", overlay.image, tag, overlay.digest, a) for a in sides]
    return tuple(wanted)
