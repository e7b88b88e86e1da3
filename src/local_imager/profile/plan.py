"""Planning: schematic + version + asset → imager profile and the images that it needs. Pure.

``plan`` answers with the profile that the official factory would use; ``handed.build_profile``
turns it into the document that an imager container is given.
"""

from __future__ import annotations

from dataclasses import replace

from local_imager.errors import PlanError
from local_imager.profile.assetname import AssetName
from local_imager.profile.builder import check_builder
from local_imager.profile.customize import (
    WITH_EXTENSIONS,
    Ingredients,
    base_installer,
    check_combination,
    customized,
)
from local_imager.profile.effects import effects
from local_imager.profile.extension import schematic_extension
from local_imager.profile.imager import refusal
from local_imager.profile.model import (
    BuildPlan,
    Catalogue,
    PlanOptions,
    Profile,
    Requirement,
)
from local_imager.profile.overlay import parse_overlay_profile
from local_imager.profile.quirks import MIN_TALOS
from local_imager.profile.resolve import find_extension, find_overlay
from local_imager.profile.version import TalosVersion
from local_imager.schematic.canonical import canonical_text, schematic_id
from local_imager.schematic.model import Schematic
from local_imager.schematic.plain import require_text

_IMAGER = "siderolabs/imager"


class ImagerRefuses(PlanError):
    """The profile can be made, but the imager's own check refuses it; ``profile`` is that one."""

    code = "imager-refuses"

    def __init__(self, message: str, *, hint: str, profile: Profile) -> None:
        super().__init__(message, hint=hint)
        self.profile = profile


def plan(
    schematic: Schematic,
    version: TalosVersion,
    asset: AssetName,
    catalogue: Catalogue | None,
    options: PlanOptions | None = None,
) -> BuildPlan:
    """Return what has to be done for one asset.

    Without a catalogue (or an overlay's profile document in it) the plan is not resolved: its
    requirements have names without digests. Raises :class:`PlanError` where the factory, the
    imager or the chosen builder cannot do what the schematic asks for.
    """
    options = options or PlanOptions()
    if catalogue is not None and catalogue.version != version:
        raise ValueError(f"the catalogue is of {catalogue.version}, the plan of {version}")
    if version < MIN_TALOS:
        raise PlanError(
            f"Talos {version} is too old",
            hint=f"images can be made from {MIN_TALOS} on",
            code="version-too-old",
        )
    require_text(schematic)
    check_combination(schematic, version, asset)
    ingredients, resolved = _ingredients(schematic, version, asset, catalogue, options)
    profile = Profile(customized(schematic, version, asset, ingredients))
    reason = refusal(profile.document)
    if reason:
        raise ImagerRefuses(
            f"{asset} cannot be built: {reason}",
            hint="see local-imager schematic lint for what takes effect where",
            profile=profile,
        )
    check_builder(profile, version, options.builder)
    return BuildPlan(
        schematic_id=str(schematic_id(schematic)),
        version=version,
        asset=asset.given or str(asset),
        profile=profile,
        requirements=_requirements(schematic, version, asset, ingredients, options),
        builder=options.builder,
        resolved=resolved,
        output_name=asset.output_name,
        warnings=tuple(
            finding.message
            for finding in effects(schematic, version, asset)
            if finding.severity != "info"
        ),
        holds_secrets=_holds_secrets(schematic, asset),
    )


def _ingredients(
    schematic: Schematic,
    version: TalosVersion,
    asset: AssetName,
    catalogue: Catalogue | None,
    options: PlanOptions,
) -> tuple[Ingredients, bool]:
    """Return the images of an asset, and whether all that matters about them is known."""
    given = Ingredients(key_files=options.key_files)
    if asset.kind not in WITH_EXTENSIONS:
        return given, True
    if asset.kind == "installer":
        given = replace(given, base_installer=base_installer(version, asset.arch))
    names = schematic.customization.official_extensions
    virtual = schematic_extension(
        schematic_id(schematic), canonical_text(schematic), version, options.factory_url
    )
    given = replace(
        given,
        extensions=tuple(_extension(name, catalogue, asset) for name in names),
        virtual_extension=virtual,
    )
    if schematic.overlay.name:
        given = _with_overlay(given, schematic, asset, catalogue, options)
    overlay_known = not schematic.overlay.name or given.overlay_profile is not None
    extensions_known = not names or catalogue is not None
    return given, overlay_known and extensions_known


def _extension(name: str, catalogue: Catalogue | None, asset: AssetName) -> Requirement:
    if catalogue is None:
        return Requirement("extension", name, arch=asset.arch)
    entry = find_extension(catalogue, name)
    return Requirement("extension", entry.name, entry.reference.tag, entry.digest, asset.arch)


def _with_overlay(
    given: Ingredients,
    schematic: Schematic,
    asset: AssetName,
    catalogue: Catalogue | None,
    options: PlanOptions,
) -> Ingredients:
    """Add the overlay twice: the imager runs the host's copy, the asset gets its own arch's."""
    if catalogue is None:
        target = Requirement("overlay", schematic.overlay.image, arch=asset.arch)
    else:
        entry = find_overlay(catalogue, schematic.overlay.name)
        target = Requirement("overlay", entry.image, entry.reference.tag, entry.digest, asset.arch)
        if entry.profile_document is not None:
            parsed = parse_overlay_profile(entry.profile_document, entry.name)
            given = replace(given, overlay_profile=parsed)
    host = replace(target, arch=options.host_arch)
    return replace(given, overlay_host=host, overlay_target=target)


def _requirements(
    schematic: Schematic,
    version: TalosVersion,
    asset: AssetName,
    given: Ingredients,
    options: PlanOptions,
) -> tuple[Requirement, ...]:
    """Return every image that the build needs, each once, in the order in which they are used."""
    builder_tag = "" if options.builder is None else str(options.builder)
    found: list[Requirement | None] = [
        Requirement("builder", _IMAGER, builder_tag),
        Requirement("base", _IMAGER, str(version)),
        given.base_installer,
    ]
    if given.extensions:
        found.append(Requirement("extensions-catalogue", "siderolabs/extensions", str(version)))
    if given.overlay_host is not None:
        found.append(Requirement("overlays-catalogue", "siderolabs/overlays", str(version)))
    found += [*given.extensions, given.overlay_host, given.overlay_target]
    return tuple(dict.fromkeys(item for item in found if item is not None))


def _holds_secrets(schematic: Schematic, asset: AssetName) -> bool:
    """Kernel arguments, META and configuration may be secret, and all but a kernel shows them."""
    custom = schematic.customization
    on_the_command_line = bool(custom.extra_kernel_args or custom.meta)
    if asset.kind == "kernel":
        return False
    if asset.kind == "cmdline":
        return on_the_command_line
    return on_the_command_line or bool(custom.embedded_machine_configuration)
