"""``local-imager trust``: what is trusted, and bringing the trusted root up to date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_imager.errors import InputError
from local_imager.events import printable

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.sources.rootfile import RootFile
    from local_imager.sources.trust import TrustPolicy, TrustRule

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group("trust")
def trust() -> None:
    """Show the trusted root and policy in force; refresh the root."""


@trust.command("show")
@_JSON
@click.pass_obj
def show(app: App, as_json: bool) -> None:
    """Show whom keyless checks lean on, what that can no longer prove, and the policy's rules."""
    from local_imager.sources.rootfile import RootFile, default_root_file
    from local_imager.sources.trust_entries import policy_from_settings

    policy = policy_from_settings(app.settings.trust)
    now = datetime.now(UTC)
    default = default_root_file()
    document = {
        "trusted_root": _describe(default, now) if default is not None else None,
        "other_roots": [_describe(RootFile(path, "file"), now) for path in _named_roots(policy)],
        "rules": [_rule(rule) for rule in policy.in_order()],
        "tightened_by": [[_rule(rule) for rule in layer] for layer in policy.layers],
        "warnings": list(policy.warnings),
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    _print(document)


def _named_roots(policy: TrustPolicy) -> list[Path]:
    rules = [*policy.rules, *(rule for layer in policy.layers for rule in layer)]
    paths = (getattr(rule.signer, "trusted_root", None) for rule in rules)
    return [path for path in dict.fromkeys(paths) if path is not None]


def _describe(file: RootFile, now: datetime) -> dict[str, Any]:
    from local_imager.sources.rootreport import authorities, cannot_prove, newest_start
    from local_imager.sources.trusted_root import load_root_file

    root = load_root_file(file)
    newest = newest_start(root)
    return {
        "origin": file.kind,
        "path": str(file.path),
        "digest": root.digest,
        "source": file.source,
        "fetched_at": file.fetched_at or None,
        "tuf_versions": dict(file.versions),
        "newest_authority_since": newest.isoformat() if newest else None,
        "age_days": (now - newest).days if newest else None,
        "authorities": authorities(root, now),
        "cannot_prove": cannot_prove(root, now),
    }


def _rule(rule: TrustRule) -> dict[str, Any]:
    root = getattr(rule.signer, "trusted_root", None)
    return {
        "pattern": rule.pattern.text,
        "wants": rule.signer.describe(),
        "threshold": rule.threshold,
        "rollback": rule.rollback,
        "origin": rule.origin.value,
        "source": rule.source,
        "trusted_root": str(root) if root else "default",
    }


def _print(document: dict[str, Any]) -> None:
    default = document["trusted_root"]
    if default is None:
        click.echo("there is no trusted root: keyless checks are refused")
    for root in filter(None, (default, *document["other_roots"])):
        _print_root(root)
    click.echo("policy, the most specific pattern first:")
    _print_rules(document["rules"])
    for layer in document["tightened_by"]:
        click.echo("and, where a pattern matches, as well:")
        _print_rules(layer)
    for warning in document["warnings"]:
        click.echo(click.style("warning: ", fg="yellow") + printable(warning))


def _print_root(root: dict[str, Any]) -> None:
    click.echo(f"trusted root ({root['origin']}): {root['path']}")
    click.echo(f"  digest     {root['digest']}")
    if root["fetched_at"]:
        click.echo(f"  refreshed  {root['fetched_at']} from {printable(root['source'])}")
    if root["newest_authority_since"]:
        click.echo(
            f"  age        its newest authority began {root['newest_authority_since'][:10]}, "
            f"{root['age_days']} days ago"
        )
    for one in root["authorities"]:
        until = one["valid_to"][:10] if one["valid_to"] else "open end"
        period = f"{one['valid_from'][:10]} to {until}"
        click.echo(f"  {one['state']:<13} {one['kind']:<29} {period:<24} {one['name']}")
    for sentence in root["cannot_prove"]:
        click.echo(f"  cannot prove: {sentence}")


def _print_rules(rules: Sequence[dict[str, Any]]) -> None:
    for rule in rules:
        more = f", {rule['threshold']} signers" if rule["threshold"] > 1 else ""
        more += ", no rollback" if rule["rollback"] == "refuse" else ""
        place = rule["source"] or rule["origin"]
        click.echo(printable(f"  {rule['pattern']:<34} {rule['wants']}{more}  [{place}]"))


@trust.command("refresh")
@click.option("--url", metavar="URL", help="TUF repository (the public Sigstore instance's).")
@click.option("--root", metavar="FILE", help="Root metadata to begin with, for another repository.")
@click.option("--out", metavar="FILE", help="Write the trusted root here; what counts stays.")
@_JSON
def refresh(url: str | None, root: str | None, out: str | None, as_json: bool) -> None:
    """Bring the trusted root up to date over TUF: the one trust command that goes online.

    The root before is kept, and an older one than was seen is refused. Another instance's root
    is written to --out, for trusted_root in a [[trust]] entry.
    """
    from local_imager.oci.durable import explained, replace_file
    from local_imager.sources.refresh import PUBLIC_URL, download_root
    from local_imager.sources.rootfile import keep_root, kept_root_file, trust_dir
    from local_imager.sources.trusted_root import parse_trusted_root

    place = (url or PUBLIC_URL).rstrip("/")
    if place != PUBLIC_URL and out is None:
        raise InputError(
            "another instance's trusted root does not become the default",
            hint="give --out FILE, and name that file as trusted_root in a [[trust]] entry",
        )
    folder = trust_dir()
    before = kept_root_file(folder)
    data, versions, fetched_at = download_root(place, Path(root) if root else None, folder)
    parsed = parse_trusted_root(data, place)
    if out is not None:
        with explained(f"write {out}"):
            replace_file(Path(out), data)
        path = out
    else:
        kept = keep_root(folder, data, source=place, fetched_at=fetched_at, versions=versions)
        path = str(kept.path)
    document = {
        "path": path,
        "digest": parsed.digest,
        "previous_digest": before.digest if before and out is None else None,
        "source": place,
        "tuf_versions": versions,
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    same = before is not None and before.digest == parsed.digest
    click.echo(f"{'unchanged' if same else 'new'} trusted root {parsed.digest}\n  {path}")
