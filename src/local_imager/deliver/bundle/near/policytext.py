"""The policy of the near side as files that stand for themselves, for people on the far side.

Keys and trusted roots become files beside the policy; no path of this machine is in it. It is a
document: nothing that arrives in a bundle is ever put in force by itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.form.words import (
    ROLE_KEY,
    ROLE_POLICY,
    ROLE_ROOT,
    ROLE_ROOT_OF_RULE,
)
from local_imager.deliver.bundle.near.contents import DocumentRoot
from local_imager.deliver.bundle.near.order import POLICY_NAME, ROOT_NAME
from local_imager.errors import SettingsError
from local_imager.oci.model import Digest
from local_imager.sources.keys import PublicKey
from local_imager.sources.rootfile import RootFile, default_root_file
from local_imager.sources.trust import (
    AcceptUnverified,
    KeylessSigner,
    KeySigner,
    TrustPolicy,
    TrustRule,
)
from local_imager.sources.trusted_root import MAX_ROOT_BYTES, load_root_file

MEDIA_TOML: Final = "application/toml"
_MEDIA_PEM: Final = "application/x-pem-file"
_MEDIA_ROOT: Final = "application/vnd.dev.sigstore.trustedroot.v0.1+json"
_HEADER: Final = """\
# The trust policy that the images of this bundle passed when it was made. It is a document: on this
# side only your own policy counts. To use it, compare the key ids over another way than the
# bundle's, then give it with --policy, or copy entries into your own settings file.
"""
_TIGHTEN_HEADER: Final = """\
# Rules of the project's settings on the near side: where a pattern matches, they had to accept as
# well. To use them, copy the entries into local-imager.toml of a project.
"""
_LINE: Final = 64


def policy_documents(policy: TrustPolicy) -> tuple[DocumentRoot, ...]:
    """Return policy.toml, what it names, and the trusted root in force.

    Raises :class:`SettingsError` for a trusted root that cannot be used.
    """
    writer = _Writer()
    texts = [(POLICY_NAME, _HEADER + writer.entries(policy.in_order()))]
    for number, layer in enumerate(policy.layers, 1):
        texts.append((f"tighten-{number}.toml", _TIGHTEN_HEADER + writer.entries(layer)))
    policies = [DocumentRoot(name, text.encode(), MEDIA_TOML, ROLE_POLICY) for name, text in texts]
    return (*policies, *writer.files())


class _Writer:
    """Writes rules as ``[[trust]]`` entries and collects the files that they name."""

    def __init__(self) -> None:
        self._files: dict[str, DocumentRoot] = {}
        default = default_root_file()
        self._default = self._root(ROOT_NAME, default) if default is not None else ""

    def files(self) -> tuple[DocumentRoot, ...]:
        """Return the files that were named, by name."""
        return tuple(self._files[name] for name in sorted(self._files))

    def entries(self, rules: Sequence[TrustRule]) -> str:
        """Return the entries in the order in which the rules count."""
        return "".join("\n[[trust]]\n" + "".join(self._lines(rule)) for rule in rules)

    def _lines(self, rule: TrustRule) -> Iterator[str]:
        yield _pair("pattern", rule.pattern.text)
        signer = rule.signer
        if isinstance(signer, AcceptUnverified):
            yield "accept_unverified = true\n"
            return
        if isinstance(signer, KeySigner):
            yield f"# {signer.key.algorithm} {signer.key.key_id}\n"
            yield _pair("key", self._key(signer.key))
            if signer.key.hash_algorithm != "sha256":
                yield _pair("hash_algorithm", signer.key.hash_algorithm)
            if signer.require_tlog:
                yield "require_tlog = true\n"
        else:
            yield from _keyless(signer)
        if isinstance(signer, KeylessSigner) or signer.require_tlog:
            root = self._named_root(signer.trusted_root)
            if root:
                yield _pair("trusted_root", root)
        if rule.threshold != 1:
            yield f"threshold = {rule.threshold}\n"
        if rule.rollback != "warn":
            yield _pair("rollback", rule.rollback)

    def _key(self, key: PublicKey) -> str:
        name = f"key-{Digest.of(key.der).short}.pem"
        self._files[name] = DocumentRoot(name, pem(key), _MEDIA_PEM, ROLE_KEY)
        return name

    def _named_root(self, path: Path | None) -> str:
        if path is None:
            return self._default
        return self._root("", RootFile(path, "file"))

    def _root(self, name: str, file: RootFile) -> str:
        """Take a trusted root along; one that is there under another name is that one."""
        digest = load_root_file(file).digest
        with file.path.open("rb") as stream:
            data = stream.read(MAX_ROOT_BYTES + 1)
        if str(Digest.of(data)) != digest:
            raise SettingsError(
                "the trusted root was changed while it was read", source=str(file.path)
            )
        for known in self._files.values():
            if known.data == data:
                return known.name
        role = ROLE_ROOT if name else ROLE_ROOT_OF_RULE
        name = name or f"trusted-root-{Digest.of(data).short}.json"
        self._files[name] = DocumentRoot(name, data, _MEDIA_ROOT, role)
        return name


def _keyless(signer: KeylessSigner) -> Iterator[str]:
    for key in ("issuer", "issuer_regexp", "identity", "identity_regexp"):
        value = getattr(signer, key)
        if value:
            yield _pair(key, value)
    for key, default in (
        ("require_tlog", True),
        ("require_sct", True),
        ("require_signed_timestamp", False),
    ):
        value = getattr(signer, key)
        if value is not default:
            yield f"{key} = {'true' if value else 'false'}\n"


def _pair(key: str, value: str) -> str:
    """Write a key with a basic string; what JSON leaves as it is and TOML does not is DEL."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return f"{key} = {text}\n"


def pem(key: PublicKey) -> bytes:
    """Return a public key as PEM, as openssl writes it."""
    text = base64.b64encode(key.der).decode()
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join(
        ["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]
    ).encode()
