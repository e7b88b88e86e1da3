"""``local-imager sources``, ``versions``, ``extensions`` and ``overlays``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from local_imager.cli.sizes import human_size
from local_imager.errors import ExitCode, VerificationRefused
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.oci.source import ImageSource
    from local_imager.profile.model import Requirement
    from local_imager.sources.inventory import HeldImage
    from local_imager.sources.verify import VerifiedImage
    from local_imager.store.store import Store

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_FROM = click.option(
    "--from",
    "from_",
    metavar="PLACE",
    help="Read images from this registry, layout directory or tar of one.",
)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))


@click.group("sources")
def sources() -> None:
    """Fetch, list and verify source images."""


@sources.command("fetch")
@click.option("--version", "version_text", required=True, metavar="V", help="Talos version.")
@click.option(
    "--arch",
    "arches",
    type=click.Choice(["amd64", "arm64"]),
    multiple=True,
    help="Architecture of the images that will be made (this host's; may be given twice).",
)
@click.option("--schematic", metavar="FILE", help="Fetch its extensions and overlay too.")
@_FROM
@_JSON
@click.pass_obj
def fetch(
    app: App,
    version_text: str,
    arches: tuple[Any, ...],
    schematic: str | None,
    from_: str | None,
    as_json: bool,
) -> None:
    """Fetch and verify all images that Talos V needs, and the imager that will run.

    Tags are looked up anew, so an image that was published again replaces the store's.
    """
    from local_imager.oci.host import host_arch
    from local_imager.profile.model import Requirement
    from local_imager.profile.version import TalosVersion
    from local_imager.schematic.parse import read_schematic
    from local_imager.sources.closure import schematic_images, version_images
    from local_imager.sources.upstream import IMAGER

    version = TalosVersion.parse(version_text)
    parsed = read_schematic(schematic) if schematic else None
    upstream = app.sources(from_)
    wanted = version_images(version, arches or (host_arch(),))
    images = dict(upstream.obtain_all(wanted, refresh=True))
    if parsed is not None:
        catalogue = upstream.catalogue(version)
        more = schematic_images(parsed, catalogue, arches or (host_arch(),))
        images |= upstream.obtain_all(more)
    builder, builder_version = upstream.builder("newest", version)
    images[Requirement("builder", IMAGER, str(builder_version))] = builder
    _report(images, as_json)


def _report(images: Mapping[Requirement, VerifiedImage], as_json: bool) -> None:
    if as_json:
        _print_json(
            [
                {"role": wanted.role, "arch": wanted.arch, **_as_dict(image)}
                for wanted, image in images.items()
            ]
        )
        return
    for wanted, image in images.items():
        flag = "  NOT VERIFIED" if image.unverified else ""
        click.echo(f"{wanted.role:<20} {image.reference}  {image.digest.short}{flag}")
    signers = sorted({image.signer for image in images.values()})
    click.echo(f"{len(images)} images are in the store; signed by {', '.join(signers)}")


def _as_dict(image: VerifiedImage) -> dict[str, object]:
    return {
        "image": str(image.reference),
        "digest": str(image.digest),
        "policy": image.policy,
        "signer": image.signer,
        "unverified": image.unverified,
    }


@sources.command("list")
@_JSON
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List the source images in the store."""
    from local_imager.sources.inventory import held_images

    images = held_images(app.store())
    if as_json:
        _print_json([image.as_dict() for image in images])
        return
    for image in images:
        arches = "+".join(image.arches) or "incomplete"
        size = human_size(image.size_bytes)
        click.echo(f"{image.descriptor.digest.short}  {arches:<12} {size:>10}  {image.reference}")
    if not images:
        click.echo("the store holds no source images; `local-imager sources fetch` brings some")


@sources.command("verify")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@_JSON
@click.pass_context
def verify(ctx: click.Context, images: tuple[str, ...], as_json: bool) -> None:
    """Verify images of the store again (all of them when none is named), without any network.

    Exits 3 when one is refused.
    """
    from local_imager.oci.layout_source import LayoutSource
    from local_imager.sources.inventory import find_held, held_images
    from local_imager.sources.trust_entries import policy_from_settings

    app: App = ctx.obj
    store = app.store()
    policy = policy_from_settings(app.settings.trust)
    chosen = [find_held(store, name) for name in images] or list(held_images(store))
    source = LayoutSource.open(store.path)
    answers = [_answer(source, image, policy, app, store) for image in chosen]
    refused = [answer for answer in answers if not answer["accepted"]]
    if as_json:
        _print_json(answers)
    else:
        _print_answers(answers)
        click.echo(f"{len(answers) - len(refused)} accepted, {len(refused)} refused")
    if refused:
        ctx.exit(ExitCode.VERIFICATION_REFUSED)


def _answer(
    source: ImageSource, image: HeldImage, policy: Any, app: App, store: Store
) -> dict[str, Any]:
    from local_imager.errors import SourceError
    from local_imager.sources.evidence import evidence_document, read_evidence
    from local_imager.sources.inventory import verify_held
    from local_imager.sources.memory import LogMemory

    kept = read_evidence(store.layout, image.reference, image.descriptor)
    memory = LogMemory(store.path, store.layout.locks_dir)
    named = {"image": str(image.reference), "digest": str(image.descriptor.digest)}
    try:
        verified = verify_held(source, image, policy, app.sink, memory)
    except (VerificationRefused, SourceError) as error:  # broken bytes are no image either
        return {**error.as_dict(), **named, "accepted": False, "kept_evidence": kept}
    answer = {**_as_dict(verified), **named, "accepted": True}
    return {**answer, "evidence": evidence_document(verified), "kept_evidence": kept}


def _print_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    for answer in answers:
        if answer["accepted"]:
            word = "UNVERIFIED" if answer["unverified"] else "accepted"
            click.echo(f"{word:<10} {answer['image']}  {answer['policy']}  {answer['signer']}")
            continue
        click.echo(f"{'REFUSED':<10} {answer['image']}  {answer['code']}: {answer['message']}")
        for line in answer.get("tried", []):
            click.echo(f"           {printable(line)}")


@click.command("versions")
@_FROM
@_JSON
@click.pass_obj
def versions(app: App, from_: str | None, as_json: bool) -> None:
    """List the Talos versions that can be built, oldest first."""
    found = [str(version) for version in app.sources(from_).versions()]
    if as_json:
        _print_json(found)
    else:
        click.echo("\n".join(found) or "no version is at hand")


@click.command("extensions")
@click.argument("version_text", metavar="VERSION")
@_FROM
@_JSON
@click.pass_obj
def extensions(app: App, version_text: str, from_: str | None, as_json: bool) -> None:
    """List the official extensions of a Talos VERSION, from its verified catalogue."""
    from local_imager.profile.version import TalosVersion

    catalogue = app.sources(from_).catalogue(TalosVersion.parse(version_text))
    if as_json:
        _print_json(
            [
                {
                    "name": entry.name,
                    "ref": f"{entry.reference.name}:{entry.reference.tag}",
                    "digest": str(entry.digest),
                    "author": entry.author,
                    "description": entry.description,
                }
                for entry in catalogue.extensions
            ]
        )
        return
    width = max((len(entry.name) for entry in catalogue.extensions), default=0)
    for entry in catalogue.extensions:
        first = entry.description.strip().split("\n")[0]
        click.echo(f"{entry.name:<{width}}  {entry.reference.tag:<22} {printable(first, limit=80)}")


@click.command("overlays")
@click.argument("version_text", metavar="VERSION")
@_FROM
@_JSON
@click.pass_obj
def overlays(app: App, version_text: str, from_: str | None, as_json: bool) -> None:
    """List the overlays of a Talos VERSION, from its verified catalogue."""
    from local_imager.profile.version import TalosVersion

    catalogue = app.sources(from_).catalogue(TalosVersion.parse(version_text))
    if as_json:
        _print_json(
            [
                {
                    "name": entry.name,
                    "image": entry.image,
                    "ref": f"{entry.reference.name}:{entry.reference.tag}",
                    "digest": str(entry.digest),
                }
                for entry in catalogue.overlays
            ]
        )
        return
    width = max((len(entry.name) for entry in catalogue.overlays), default=0)
    for entry in catalogue.overlays:
        click.echo(f"{printable(entry.name):<{width}}  {entry.image}:{entry.reference.tag}")
