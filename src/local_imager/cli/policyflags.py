"""The policy that a command asks under: flags of ``verify``, ``--key`` of ``bundle``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from local_imager.errors import InputError

if TYPE_CHECKING:
    from local_imager.cli.context import App
    from local_imager.sources.trust import TrustPolicy, TrustRule

Command = TypeVar("Command", bound=Callable[..., Any])

_SWITCHES: Final = ("require_tlog", "require_sct", "require_signed_timestamp")
_OPTIONS: Final = (
    click.option("--policy", metavar="FILE", help="Ask under the [[trust]] entries of this file."),
    click.option("--key", metavar="FILE", help="Ask for a signature of this public key (PEM)."),
    click.option("--issuer", metavar="I", help="Ask for an identity vouched for by this issuer."),
    click.option("--issuer-regexp", metavar="R", help="The issuer, by a pattern (Go syntax)."),
    click.option("--identity", metavar="S", help="The identity that must have signed."),
    click.option("--identity-regexp", metavar="R", help="The identity, by a pattern (Go syntax)."),
    click.option(
        "--hash-algorithm",
        metavar="NAME",
        help="What the key's signatures hash with: sha256 (default), sha384, sha512.",
    ),
    click.option(
        "--require-tlog/--no-require-tlog",
        default=None,
        help="Want a transparency log entry (default: yes for identities, no for keys).",
    ),
    click.option(
        "--require-sct/--no-require-sct",
        default=None,
        help="Want the certificate to be in a transparency log (default: yes).",
    ),
    click.option(
        "--require-signed-timestamp",
        is_flag=True,
        default=None,
        help="Want an RFC 3161 timestamp.",
    ),
    click.option(
        "--trusted-root", metavar="FILE", help="Lean on this trusted_root.json, not the default."
    ),
    click.option(
        "--predicate-type",
        metavar="T",
        help="Ask for an attestation of this in-toto predicate type.",
    ),
)


def policy_options(command: Command) -> Command:
    """Add the policy flags to a command; it takes them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class PolicyFlags:
    """The flags as given; None means "not given"."""

    policy: str | None = None
    key: str | None = None
    issuer: str | None = None
    issuer_regexp: str | None = None
    identity: str | None = None
    identity_regexp: str | None = None
    hash_algorithm: str | None = None
    require_tlog: bool | None = None
    require_sct: bool | None = None
    require_signed_timestamp: bool | None = None
    trusted_root: str | None = None
    predicate_type: str | None = None

    def _given(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def policy_for(self, app: App) -> TrustPolicy:
        """Return the policy to ask under.

        That of the signer flags, covering every name; else of the file; else of the settings. A
        file or flags stand alone: what the settings say takes no part. Raises
        :class:`InputError` for flags that do not go together, :class:`SettingsError`.
        """
        self._check_root()
        signer = self._given("key", "issuer", "issuer_regexp", "identity", "identity_regexp")
        if signer:
            if self.policy is not None:
                raise InputError(
                    f"--policy and {_flag(min(signer))} do not go together",
                    hint="name one signer with flags, or a policy in a file",
                )
            return self._from_flags(signer)
        if self.hash_algorithm is not None:
            raise InputError("--hash-algorithm says something about a key", hint="add --key FILE")
        return self._adjusted(self._from_file() if self.policy is not None else _settings(app))

    def _check_root(self) -> None:
        """A root that cannot be used is a bad argument, whether or not a signature needs it."""
        from local_imager.sources.trusted_root import load_trusted_root

        if self.trusted_root is not None:
            load_trusted_root(Path(self.trusted_root))

    def _from_flags(self, signer: Mapping[str, Any]) -> TrustPolicy:
        from local_imager.sources.trust import Origin
        from local_imager.sources.trust_entries import policy_from_entries

        if "key" in signer and len(signer) > 1:
            other = min(name for name in signer if name != "key")
            raise InputError(f"--key and {_flag(other)} do not go together")
        for one, pattern in (("issuer", "issuer_regexp"), ("identity", "identity_regexp")):
            if "key" not in signer and (one in signer) == (pattern in signer):
                raise InputError(
                    f"an identity is asked for with either {_flag(one)} or {_flag(pattern)}",
                    hint="--issuer I --identity S, or the -regexp forms",
                )
        needless = self._given("require_sct", "require_signed_timestamp")
        if "key" in signer and needless:
            raise InputError(f"{_flag(min(needless))} means nothing for a key")
        entry = {"pattern": "**", **signer}
        entry |= self._given("hash_algorithm", "trusted_root", *_SWITCHES)
        return policy_from_entries([entry], base_dir=Path.cwd(), origin=Origin.FLAGS)

    def _from_file(self) -> TrustPolicy:
        from local_imager.settings import load_policy_file
        from local_imager.sources.trust_entries import policy_from_entries

        file = load_policy_file(Path(self.policy or ""))
        return policy_from_entries(file.entries, base_dir=file.base_dir, source=file.origin)

    def _adjusted(self, policy: TrustPolicy) -> TrustPolicy:
        """Let what was said on the command line replace what the rules say of root and switches."""
        changes = self._given(*_SWITCHES)
        if self.trusted_root is not None:
            changes["trusted_root"] = Path(self.trusted_root)
        if not changes:
            return policy
        return replace(
            policy,
            rules=tuple(_with(rule, changes) for rule in policy.rules),
            layers=tuple(tuple(_with(rule, changes) for rule in layer) for layer in policy.layers),
        )


def bundle_policy(app: App, key: str | None) -> TrustPolicy:
    """Return the policy that bundles are judged by: the settings', with ``--key`` for bundles.

    What looks wrong in it is told. Raises :class:`SettingsError`.
    """
    from local_imager.deliver.bundle.form.signing import policy_with_key
    from local_imager.events import Message

    policy = _settings(app)
    for warning in policy.warnings:
        app.sink.emit(Message(warning, "warning"))
    return policy if key is None else policy_with_key(policy, Path(key))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with(rule: TrustRule, changes: Mapping[str, Any]) -> TrustRule:
    signer: Any = rule.signer
    fitting = {name: value for name, value in changes.items() if hasattr(signer, name)}
    return replace(rule, signer=replace(signer, **fitting)) if fitting else rule


def _settings(app: App) -> TrustPolicy:
    from local_imager.sources.trust_entries import policy_from_settings

    return policy_from_settings(app.settings.trust)
