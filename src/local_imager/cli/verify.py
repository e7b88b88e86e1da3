"""``local-imager verify`` and ``verify-blob``: one question, answered without any network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_imager.cli.policyflags import PolicyFlags, policy_options
from local_imager.errors import ExitCode, InputError, LocalImagerError, NotFound, SourceError
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.oci.layout_source import LayoutSource
    from local_imager.oci.model import Descriptor, Reference
    from local_imager.sources.memory import LogMemory
    from local_imager.sources.trust import TrustPolicy

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.command("verify")
@click.argument("image", metavar="IMAGE")
@click.option("--layout", metavar="DIR", help="Look in this OCI layout, or tar of one.")
@policy_options
@_JSON
@click.pass_context
def verify(
    ctx: click.Context, /, image: str, layout: str | None, as_json: bool, **flags: Any
) -> None:
    """Verify IMAGE: name:tag, name@sha256:…, or a bare digest inside the layout.

    Without --layout the layout that the settings read images from is asked, then the store; a
    registry never is. The signer is named by --policy, --key or --issuer with an identity; else
    the settings' trust policy counts. Exits 0 when verified, 3 when refused (or accepted without
    verification), 2 when the question cannot be asked.
    """
    given = PolicyFlags(**flags)
    app: App = ctx.obj
    policy = given.policy_for(app)
    _warn(policy)
    try:
        document = _examine(app, image, layout, policy, given.predicate_type)
    except LocalImagerError as error:
        # Bytes that are broken are a refusal, too: nothing of the image may be used.
        broken = error.exit_code == ExitCode.VERIFICATION_REFUSED or error.code == "malformed"
        if not broken:
            raise
        document = {"image": image, "verified": False, **error.as_dict(), "signatures": []}
    _answer(ctx, document, as_json)


def _examine(
    app: App, image: str, layout: str | None, policy: TrustPolicy, predicate_type: str | None
) -> dict[str, Any]:
    from local_imager.sources.evidence import evidence_document
    from local_imager.sources.locate import UNNAMED
    from local_imager.sources.reasons import Reason
    from local_imager.sources.statement import PREDICATE_IMAGE_SIGNATURE
    from local_imager.sources.verify import examine_image

    source, reference, descriptor, memory = _find(app, image, layout)
    found = examine_image(
        source,
        reference,
        descriptor,
        policy,
        predicate_type=predicate_type or PREDICATE_IMAGE_SIGNATURE,
        memory=memory,
    )
    name = image if reference.name == UNNAMED.name else str(reference)
    document: dict[str, Any] = {
        "image": name,
        "digest": str(descriptor.digest),
        "verified": found.image is not None and not found.image.unverified,
        "read_from": printable(source.location),
    }
    if found.image is not None:
        document |= {
            "code": Reason.UNVERIFIED.code if found.image.unverified else "accepted",
            "message": Reason.UNVERIFIED.meaning if found.image.unverified else "",
            "policy": found.image.policy,
            "signer": found.image.signer,
            "unverified": found.image.unverified,
            "evidence": evidence_document(found.image),
        }
    elif found.refusal is not None:
        document |= found.refusal.as_dict()
        document |= {"image": name, "policy": "", "signer": "", "unverified": False}
    document |= _proof([verdict.as_dict() for verdict in found.verdicts])
    document["requirements"] = [dict(outcome.as_dict()) for outcome in found.outcomes]
    document["signatures"] = [dict(verdict.as_dict()) for verdict in found.verdicts]
    return document


def _proof(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the times, log index and trusted root of the first signature that was accepted."""
    first: Mapping[str, Any] = next((one for one in verdicts if one["accepted"]), {})
    return {
        "signed_at": first.get("signed_at"),
        "clock": first.get("clock"),
        "log_index": first.get("log_entry", {}).get("index"),
        "trusted_root": first.get("trusted_root"),
    }


def _find(
    app: App, image: str, layout: str | None
) -> tuple[LayoutSource, Reference, Descriptor, LogMemory | None]:
    """Return where the image is, what it is, and what is remembered of its name."""
    from local_imager.oci.layout_source import LayoutSource
    from local_imager.sources.locate import locate

    if layout is not None:
        try:
            source = LayoutSource.open(Path(layout))
        except SourceError as error:
            if error.code != "source-failed":
                raise
            raise InputError(error.message, hint=error.hint, source=layout) from error
        return source, *locate(source, image), None
    from local_imager.oci.open import is_path

    place = app.settings.source
    if place and is_path(place):
        source = LayoutSource.open(Path(place.removeprefix("oci:")).expanduser())
        try:
            return source, *locate(source, image), None
        except NotFound:
            pass
    return _find_held(app, image)


def _find_held(
    app: App, image: str
) -> tuple[LayoutSource, Reference, Descriptor, LogMemory | None]:
    from local_imager.oci.layout_source import LayoutSource
    from local_imager.sources.locate import locate
    from local_imager.sources.memory import LogMemory
    from local_imager.store.store import Store

    store = Store.open(app.settings.store, create=False)
    source = LayoutSource.open(store.path)
    reference, descriptor = locate(source, image)
    return source, reference, descriptor, LogMemory(store.path, store.layout.locks_dir)


@click.command("verify-blob")
@click.argument("file", metavar="FILE")
@click.option("--bundle", metavar="BUNDLE", required=True, help="The Sigstore bundle of the file.")
@policy_options
@_JSON
@click.pass_context
def verify_blob(ctx: click.Context, /, file: str, bundle: str, as_json: bool, **flags: Any) -> None:
    """Verify FILE against a Sigstore bundle.

    A file has no image name, so of a policy only rules count whose pattern covers every name.
    """
    from local_imager.oci.model import Digest
    from local_imager.sources.blob import MAX_ARTIFACT_BYTES, examine_blob
    from local_imager.sources.bundle import MAX_BUNDLE_BYTES

    given = PolicyFlags(**flags)
    policy = given.policy_for(ctx.obj)
    _warn(policy)
    artifact = _read(file, MAX_ARTIFACT_BYTES)
    untrusted_bundle = _read(bundle, MAX_BUNDLE_BYTES)
    verdict = examine_blob(
        artifact, untrusted_bundle, policy, predicate_type=given.predicate_type or ""
    )
    shown = dict(verdict.as_dict())
    document: dict[str, Any] = {
        "file": file,
        "digest": str(Digest.of(artifact)),
        "verified": verdict.acceptance is not None,
        "code": shown["code"],
        "message": verdict.detail,
        "policy": verdict.rule.name if verdict.rule else "",
        "signer": verdict.acceptance.signer if verdict.acceptance else "",
        **_proof([shown]),
        "signatures": [shown],
    }
    _answer(ctx, document, as_json)


def _read(path: str, max_bytes: int) -> bytes:
    try:
        with Path(path).open("rb") as stream:
            # One byte more than allowed, so that the check for size can refuse it.
            return stream.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", source=path) from error


def _warn(policy: TrustPolicy) -> None:
    for warning in policy.warnings:
        click.echo(click.style("warning: ", fg="yellow") + printable(warning), err=True)


def _answer(ctx: click.Context, document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(document)
    if not document["verified"]:
        ctx.exit(ExitCode.VERIFICATION_REFUSED)


def _print(document: Mapping[str, Any]) -> None:
    what = printable(document.get("image") or document.get("file", ""))
    word = "verified" if document["verified"] else "REFUSED"
    if document.get("unverified"):
        word = "NOT VERIFIED"
    click.echo(f"{word}  {what}")
    lines = {
        "digest": document.get("digest"),
        "why": f"{document['code']}: {document['message']}" if document.get("message") else "",
        "signer": document.get("signer"),
        "policy": document.get("policy"),
        "signed at": document.get("signed_at"),
        "clock": document.get("clock"),
        "log index": document.get("log_index"),
        "root": document.get("trusted_root"),
        "rollback": document.get("evidence", {}).get("rollback", {}).get("meaning"),
        "hint": document.get("hint"),
    }
    for name, value in lines.items():
        if value not in (None, ""):
            click.echo(f"  {name:<10} {printable(str(value))}")
    for one in document["signatures"]:
        verdict = f"accepted, {one['signer']}" if one["accepted"] else one["code"]
        detail = f" ({one['detail']})" if one["detail"] else ""
        click.echo(printable(f"  signature  {one['form']}, {one['where']}: {verdict}{detail}"))
