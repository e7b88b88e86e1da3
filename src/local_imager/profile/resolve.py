"""Names of extensions and overlays to entries of a version's catalogue, renames included.

Rules of the factory: the exact name is looked up first and the table of renames only when that
fails; one step, from the old name to the new one, whatever the version. Order and repetitions
stay as they are. An overlay is found by its name; the image that a schematic gives for it does
not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from local_imager.errors import PlanError
from local_imager.profile.model import Catalogue, CatalogueExtension, CatalogueOverlay

RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "siderolabs/amdgpu-firmware": "siderolabs/amdgpu",
        "siderolabs/gasket": "siderolabs/gasket-driver",
        "siderolabs/i915-ucode": "siderolabs/i915",
        "siderolabs/nonfree-kmod-nvidia": "siderolabs/nonfree-kmod-nvidia-lts",
        "siderolabs/nvidia-container-toolkit": "siderolabs/nvidia-container-toolkit-lts",
        "siderolabs/nvidia-fabricmanager": "siderolabs/nvidia-fabric-manager-lts",
        "siderolabs/nvidia-open-gpu-kernel-modules": (
            "siderolabs/nvidia-open-gpu-kernel-modules-lts"
        ),
        "siderolabs/talos-vmtoolsd": "siderolabs/vmtoolsd-guest-agent",
        "siderolabs/usb-modem": "siderolabs/usb-modem-drivers",
        "siderolabs/v4l-uvc": "siderolabs/v4l-uvc-drivers",
        "siderolabs/xe-guest-utilities": "siderolabs/xen-guest-agent",
    }
)


def find_extension(catalogue: Catalogue, name: str) -> CatalogueExtension:
    """Return the catalogue's entry for an extension, under its own or its later name.

    Raises :class:`PlanError` that names the nearest extensions of this version.
    """
    by_name: dict[str, CatalogueExtension] = {}
    for entry in catalogue.extensions:
        by_name.setdefault(entry.name, entry)  # the first of two entries counts
    found = by_name.get(name) or by_name.get(RENAMED.get(name, ""))
    if found is not None:
        return found
    raise PlanError(
        f"the extension {name!r} does not exist for Talos {catalogue.version}",
        hint=extension_hint(name, tuple(by_name)),
        code="unknown-extension",
    )


def extension_hint(name: str, existing: tuple[str, ...]) -> str:
    """Return what to write instead of an extension name that a version does not have."""
    old = next((old for old, new in RENAMED.items() if new == name), "")
    if old in existing:
        return f"in this version it is still called {old}"
    if f"siderolabs/{name}" in existing:
        return f"write siderolabs/{name}"
    return _nearest(name, existing, "local-imager extensions VERSION lists what there is")


def find_overlay(catalogue: Catalogue, name: str) -> CatalogueOverlay:
    """Return the catalogue's entry for an overlay.

    Raises :class:`PlanError` that names the nearest overlays of this version.
    """
    for entry in catalogue.overlays:
        if entry.name == name:
            return entry
    raise PlanError(
        f"the overlay {name!r} does not exist for Talos {catalogue.version}",
        hint=_nearest(
            name,
            tuple(entry.name for entry in catalogue.overlays),
            "local-imager overlays VERSION lists what there is",
        ),
        code="unknown-overlay",
    )


def _nearest(name: str, existing: tuple[str, ...], fallback: str) -> str:
    import difflib

    # The common "siderolabs/" would make every name look like every other.
    short = {entry.rpartition("/")[2]: entry for entry in existing}
    wanted = name.rpartition("/")[2].lower()
    close = [short[key] for key in difflib.get_close_matches(wanted, short, n=3, cutoff=0.5)]
    return f"did you mean {', '.join(close)}?" if close else fallback
