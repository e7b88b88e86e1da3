"""``local-imager bundle create``: everything that a site without network needs, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from local_imager.cli.sizes import counted, human_size

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.deliver.bundle.form.model import Bundle
    from local_imager.deliver.bundle.form.signing import SigningKey
    from local_imager.deliver.bundle.near.create import Created, Form, Preview
    from local_imager.deliver.bundle.near.order import Order

_ARCH: Final = click.Choice(["amd64", "arm64"])
_SHOWN_PARTS: Final = 40


@click.command("create")
@click.option("--version", "versions", multiple=True, metavar="V", help="Talos version.")
@click.option(
    "--schematic", "schematics", multiple=True, metavar="F", help="Take all that F is built from."
)
@click.option(
    "--extensions", "extensions", multiple=True, metavar="NAME,…", help="Further extensions."
)
@click.option("--all-extensions", is_flag=True, help="Every extension of the version's catalogue.")
@click.option("--overlays", multiple=True, metavar="NAME,…|all", help="Further overlays.")
@click.option(
    "--arch",
    "arches",
    type=_ARCH,
    multiple=True,
    help="Architecture of the machines that images are for (default: this host's).",
)
@click.option(
    "--host-arch",
    "host_arches",
    type=_ARCH,
    multiple=True,
    help="Architecture of the far side's build host (default: this host's).",
)
@click.option(
    "--with-assets",
    "assets",
    multiple=True,
    metavar="ASSET",
    help="Finished assets of each schematic; built here if need be.",
)
@click.option("--image", "images", multiple=True, metavar="REF", help="Any further image.")
@click.option(
    "--images-file", metavar="FILE", help="Further images, one a line; - is standard input."
)
@click.option("--since", metavar="FAR.json", help="Leave out what this inventory lists.")
@click.option("--no-delta", is_flag=True, help="With --since: send what is missing whole.")
@click.option("--split", metavar="SIZE", help="Write parts of at most this size, such as 4GB.")
@click.option("--zstd", "packed", is_flag=True, help="Compress it (layers are already).")
@click.option("--sign-key", metavar="KEY", help="Sign it with this private key (PEM).")
@click.option("--dry-run", is_flag=True, help="Only say how large it would be, and of what.")
@click.option("--builder", metavar="V|newest|same", help="Which imager is to run over there.")
@click.option("--from", "source", metavar="PLACE", help="Read images from this layout or registry.")
@click.option("--offline", is_flag=True, help="Take what the store holds.")
@click.option("--secureboot-keys", metavar="DIR", help="Directory of the secure boot keys.")
@click.option("--force", is_flag=True, help="Replace another file that is there.")
@click.option("-o", "--output", metavar="FILE.tar", help="The file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def create(ctx: click.Context, /, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Make a bundle: imagers, installers, extensions, overlays, assets and any further images.

    With their signatures, the lock, the schematics, the policy and the trusted root, in a tar of
    an OCI layout. The same inputs give the same bytes. Nothing that the policy refuses gets in.
    """
    if not given["output"] and not dry_run:
        raise click.UsageError("Missing option '-o': the file to write, such as -o site.tar")
    flags = {name: given[name] for name in ("builder", "source", "secureboot_keys")}
    app: App = ctx.obj.with_flags(flags)
    order = _order(given)
    form = _form(app, given)
    if dry_run:
        preview = _preview(app, order, form)
        if as_json:
            _print_json(_preview_document(preview))
        else:
            _print_lines(_preview_lines(preview))
        return
    from local_imager.deliver.bundle.near.create import create_bundle

    created = create_bundle(app.factory, order, form, app.sink)
    if as_json:
        _print_json(created.as_dict())
    else:
        _print_lines(_created_lines(created, order, given["since"]))


def _order(given: dict[str, Any]) -> Order:
    from local_imager.deliver.bundle.near.order import (
        ALL,
        Order,
        parse_image,
        read_images_file,
        read_schematic_file,
        split_names,
    )
    from local_imager.oci.host import host_arch
    from local_imager.profile.version import TalosVersion

    overlays = split_names(given["overlays"])
    images = [parse_image(text) for text in given["images"]]
    if given["images_file"]:
        images += read_images_file(given["images_file"])
    order = Order(
        versions=tuple(sorted({TalosVersion.parse(text) for text in given["versions"]})),
        arches=tuple(sorted(set(given["arches"]))) or (host_arch(),),
        host_arches=tuple(sorted(set(given["host_arches"]))) or (host_arch(),),
        schematics=tuple(read_schematic_file(path) for path in dict.fromkeys(given["schematics"])),
        extensions=split_names(given["extensions"]),
        all_extensions=given["all_extensions"],
        overlays=tuple(name for name in overlays if name != ALL),
        all_overlays=ALL in overlays,
        assets=split_names(given["assets"]),
        images=tuple(dict.fromkeys(images)),
        offline=given["offline"],
    )
    return order.check()


def _form(app: App, given: dict[str, Any]) -> Form:
    from local_imager.cli.sizes import parse_size
    from local_imager.deliver.bundle.form.inventory import read_inventory
    from local_imager.deliver.bundle.near.create import Form

    packed = given["packed"]
    output = Path(given["output"] or "bundle.tar")
    if packed and output.suffix != ".zst":
        output = output.with_name(output.name + ".zst")
    return Form(
        output=output,
        packed=packed or output.suffix == ".zst",
        since=read_inventory(Path(given["since"])) if given["since"] else None,
        deltas=not given["no_delta"],
        limit_bytes=parse_size(given["split"]) if given["split"] else None,
        key=_key(app, given["sign_key"]),
        force=given["force"],
    )


def _key(app: App, path: str | None) -> SigningKey | None:
    """Load the key before anything is fetched: a wrong passphrase shows at once."""
    if path is None:
        return None
    from local_imager.cli.passphrase import passphrase_for
    from local_imager.deliver.bundle.form.signing import load_private_key

    return load_private_key(Path(path), passphrase_for(Path(path)), app.sink)


def _preview(app: App, order: Order, form: Form) -> Preview:
    from local_imager.deliver.bundle.near.create import preview_bundle
    from local_imager.oci.layout import Layout

    with app.factory.store.workspace() as folder:
        scratch = Layout.create(folder / "look")
        return preview_bundle(app.factory, order, form, app.sink, scratch)


def _rows(bundle: Bundle) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield for each kind of item its word, items, blobs, bytes, and the bytes that travel.

    A blob counts for the first kind that needs it, so the rows add up.
    """
    counted_blobs: set[object] = set()
    for kind in ("image", "asset", "document"):
        items = [item for item in bundle.items if item.kind == kind]
        digests = {digest for item in items for digest in item.blobs} - counted_blobs
        counted_blobs |= digests
        blobs = [blob for blob in bundle.blobs if blob.digest in digests]
        size = sum(blob.size_bytes for blob in blobs)
        travels = sum(blob.size_bytes for blob in blobs if blob.carried)
        if items:
            yield f"{kind}s", len(items), len(blobs), size, travels


def _preview_document(preview: Preview) -> dict[str, Any]:
    exact = not preview.unbuilt and preview.bundle.since is None
    names = ("kind", "items", "blobs", "size_bytes", "carried_bytes")
    return {
        "dry_run": True,
        "set": str(preview.set_digest) if exact else None,
        "size_bytes": preview.size_bytes,
        "exact": exact,
        "part_bytes": list(preview.part_bytes),
        "kinds": [dict(zip(names, row, strict=True)) for row in _rows(preview.bundle)],
        "not_built_yet": list(preview.unbuilt),
        "secrets": list(preview.secrets),
    }


def _preview_lines(preview: Preview) -> Iterator[str]:
    rows = list(_rows(preview.bundle))
    delta = preview.bundle.since is not None
    for word, items, blobs, size, travels in rows:
        held = f", {human_size(size - travels)} of it held by the far side" if delta else ""
        yield f"{human_size(size):>10}  {items:>4} {word:<9} in {counted(blobs, 'blob')}{held}"
    for name in preview.unbuilt:
        yield f"{'?':>10}  {name.rpartition('/')[2]} is not built yet, so its size is not known"
    about = "at least " if preview.unbuilt else "at most " if delta else ""
    done = "built or written" if preview.unbuilt else "written"
    parts = counted(len(preview.part_bytes), "file")
    yield f"{human_size(preview.size_bytes):>10}  {about}in {parts}; nothing was {done}"


def _created_lines(created: Created, order: Order, since: str | None) -> Iterator[str]:
    kinds = [item.kind for item in created.bundle.items]
    held = [counted(kinds.count(kind), kind) for kind in ("image", "asset", "document")]
    for part in created.parts[:_SHOWN_PARTS]:
        again = "  (was there already, byte for byte)" if part.unchanged else ""
        yield f"{human_size(part.size_bytes):>10}  {part.path}{again}"
    if len(created.parts) > 1:
        parts = counted(len(created.parts), "part")
        yield f"{human_size(created.size_bytes):>10}  in {parts}"
    yield (
        f"holds     {', '.join(entry for entry in held if not entry.startswith('0 '))} "
        f"in {counted(len(created.bundle.blobs), 'blob')}"
    )
    if created.bundle.since is not None:
        left_out = human_size(created.left_out_bytes)
        yield f"leaves    {left_out} out that the far side has, by its inventory"
        if created.rebuilt:
            size = human_size(sum(blob.size_bytes for blob in created.rebuilt))
            blobs = counted(len(created.rebuilt), "blob")
            told = human_size(created.differences_bytes)
            yield f"          {blobs} of {size} travel as differences of {told}"
    yield f"identity  {created.set_digest}"
    yield from _signature_lines(created)
    yield "next"
    yield from (f"  {line}" for line in _next_lines(created, order, since))


def _signature_lines(created: Created) -> Iterator[str]:
    if created.signature is None:
        yield (
            "signed    by nobody: images have signatures of their own, but nothing vouches for "
            "assets and documents"
        )
        yield "          (--sign-key KEY signs it; the far side's policy may demand that)"
    elif created.signer:
        yield f"signed    by {created.signer}"
        yield f"          {created.signature} travels beside it"
    else:
        yield f"signed    as {created.signature} says, which was there already and is left as it is"


def _next_lines(created: Created, order: Order, since: str | None) -> Iterator[str]:
    first, count = created.parts[0].path, len(created.parts)
    # A shell finds all parts of this set, and no part of another, by this.
    name = first.name.replace(f".part1of{count}", f".part*of{count}") if count > 1 else first.name
    files = str(first.with_name(name))
    if order.versions:
        have = f"--have {since} " if since else ""
        yield f"local-imager bundle check {have}{files}   # proves that nothing is missing"
    else:
        yield f"local-imager bundle verify {files}"
    signature = f" and {created.signature.name}" if created.signature else ""
    yield f"carry {name}{signature} over, then on the far side:"
    yield f"local-imager bundle import {name}"


def _print_lines(lines: Iterator[str] | Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
