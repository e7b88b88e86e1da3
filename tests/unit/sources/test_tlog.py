"""Log entries under a public key: every part that is changed or left out is noticed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_imager.errors import LocalImagerError
from local_imager.sources.bundle import parse_bundle
from local_imager.sources.candidates import Candidate, Material
from local_imager.sources.keys import load_pem_key
from local_imager.sources.reasons import Rejected
from local_imager.sources.signers import judge
from local_imager.sources.tlog import InclusionProof, LogEntry, parse_legacy_entry, root_from_path
from local_imager.sources.trust import KeySigner
from tests.unit.sources.test_keyless import bundle_blob
from tests.unit.sources.test_sigfix import SIGFIX

Change = Callable[[dict[str, Any]], None]
REKOR2 = ("key-p256-bundle-tlog", "p256")
REKOR1 = ("key-rsa2048-bundle-rekor1", "rsa2048")


def signer(key: str, root: str = "trusted_root.json") -> KeySigner:
    pem = (SIGFIX / "keys" / f"{key}.pub").read_bytes()
    return KeySigner(load_pem_key(pem, "sha256", key), True, SIGFIX / "trust" / root)


def judged(layout: str, key: str, change: Change | None = None, **more: Any) -> None:
    document = json.loads(bundle_blob(layout))
    if change is not None:
        change(document["verificationMaterial"]["tlogEntries"][0])
    bundle = parse_bundle(json.dumps(document).encode())
    assert bundle.envelope is not None
    candidate = Candidate(
        "bundle-v0.3",
        "test",
        bundle.envelope.signatures,
        bundle.envelope.encoded,
        bundle.envelope.untrusted_payload,
        lambda: None,
        None,  # type: ignore[arg-type]
        Material(b"", bundle.log_entries, bundle.timestamps),
        proof_required=True,
    )
    judge(candidate, signer(key, **more))


@pytest.mark.parametrize(("layout", "key"), [REKOR1, REKOR2])
def test_untouched_entries_are_accepted(layout: str, key: str) -> None:
    judged(layout, key)


def flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


def put(*path: str, value: Any = None) -> Change:
    """Replace a field; without a value, flip its last bit."""

    def change(entry: dict[str, Any]) -> None:
        holder = entry
        for key in path[:-1]:
            holder = holder[key]
        old = holder[path[-1]]
        if value is not None:
            holder[path[-1]] = value
        else:
            holder[path[-1]] = [flip(old[0]), *old[1:]] if isinstance(old, list) else flip(old)

    return change


def drop(*path: str) -> Change:
    def change(entry: dict[str, Any]) -> None:
        holder = entry
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]

    return change


def note(edit: Callable[[str], str]) -> Change:
    def change(entry: dict[str, Any]) -> None:
        checkpoint = entry["inclusionProof"]["checkpoint"]
        checkpoint["envelope"] = edit(checkpoint["envelope"])

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (drop("inclusionProof"), "tlog-invalid"),
        (drop("inclusionProof", "checkpoint"), "tlog-invalid"),
        (put("inclusionProof", "rootHash"), "tlog-invalid"),
        (put("inclusionProof", "hashes"), "tlog-invalid"),
        (put("inclusionProof", "hashes", value=[]), "tlog-invalid"),
        (put("inclusionProof", "treeSize", value="34"), "tlog-invalid"),
        (put("inclusionProof", "logIndex", value="3"), "tlog-invalid"),
        (put("logId", "keyId"), "tlog-unknown"),
        (put("canonicalizedBody", value="e30="), "malformed"),
        (put("kindVersion", "version", value="0.0.9"), "tlog-other-entry"),
        (note(lambda text: text.replace("alpha", "omega", 1)), "tlog-invalid"),
        (note(lambda text: text.replace("— ", "- ")), "tlog-invalid"),
        (note(lambda text: text.split("\n\n")[0]), "tlog-invalid"),
        (note(lambda text: text.replace("\n\n", "\nextra line\n\n")), "tlog-invalid"),
        (note(lambda _: ""), "tlog-invalid"),
    ],
)
@pytest.mark.parametrize("which", [REKOR1, REKOR2], ids=["rekor1", "rekor2"])
def test_a_changed_entry_is_refused(which: tuple[str, str], change: Change, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        judged(*which, change)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        put("inclusionPromise", "signedEntryTimestamp"),
        put("integratedTime", value="1795232744"),
        put("logIndex", value="30"),
    ],
)
def test_a_changed_promise_is_refused(change: Change) -> None:
    with pytest.raises(Rejected) as caught:
        judged(*REKOR1, change)
    assert caught.value.code == "tlog-invalid"


@pytest.mark.parametrize("what", ["signature", "payloadHash"])
def test_an_entry_about_something_else_is_refused(what: str) -> None:
    def change(entry: dict[str, Any]) -> None:
        body = json.loads(base64.b64decode(entry["canonicalizedBody"]))
        if what == "signature":
            one = body["spec"]["signatures"][0]
            one["signature"] = flip(one["signature"])
        else:
            body["spec"]["payloadHash"]["value"] = "00" * 32
        entry["canonicalizedBody"] = base64.b64encode(json.dumps(body).encode()).decode()

    with pytest.raises(Rejected) as caught:
        judged(*REKOR1, change)
    assert caught.value.code == "tlog-other-entry"


@pytest.mark.parametrize(
    ("which", "root", "code"),
    [
        (REKOR1, "trusted_root.no-rekor1.json", "tlog-unknown"),
        (REKOR1, "trusted_root.rekor1-past.json", "tlog-unknown"),
        (REKOR2, "trusted_root.other-rekor2.json", "tlog-invalid"),
        (REKOR2, "trusted_root.version9.json", "settings-invalid"),
        (REKOR2, "trusted_root.garbage.json", "settings-invalid"),
        (REKOR2, "no-such-file.json", "settings-invalid"),
        (REKOR2, "public-good.trusted_root.json", "tlog-unknown"),
    ],
)
def test_another_trusted_root_is_no_good(which: tuple[str, str], root: str, code: str) -> None:
    with pytest.raises(LocalImagerError) as caught:
        judged(*which, root=root)
    assert caught.value.code == code


def test_the_older_forms_entry_needs_all_its_parts() -> None:
    blobs = (SIGFIX / "layouts" / "key-p256-legacy-tlog" / "blobs/sha256").iterdir()
    (manifest,) = [data for p in blobs if b"SignedEntryTimestamp" in (data := p.read_bytes())]
    annotations = json.loads(manifest)["layers"][0]["annotations"]
    text = annotations["dev.sigstore.cosign/bundle"]
    entry: LogEntry = parse_legacy_entry(text)
    assert entry.log_index == 30
    for key in ("SignedEntryTimestamp", "Payload"):
        document = json.loads(text)
        del document[key]
        with pytest.raises(Rejected):
            parse_legacy_entry(json.dumps(document))


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, the plain recursive definition."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = tree_root(leaves[:split]), tree_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def audit_path(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 9162 2.1.3.1, the plain recursive definition."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*audit_path(leaves[:split], index), tree_root(leaves[split:])]
    return [*audit_path(leaves[split:], index - split), tree_root(leaves[:split])]


def test_every_leaf_of_every_small_tree_leads_to_the_root_and_no_other_does() -> None:
    for size in range(1, 33):
        leaves = [bytes([n]) for n in range(size)]
        root = tree_root(leaves)
        for index in range(size):
            path = tuple(audit_path(leaves, index))
            leaf = hashlib.sha256(b"\0" + leaves[index]).digest()
            assert root_from_path(leaf, InclusionProof(index, size, root, path, "")) == root
            for wrong in {(index + 1) % size, index ^ 1} - {index}:
                proof = InclusionProof(wrong, size, root, path, "")
                assert root_from_path(leaf, proof) != root
            longer = InclusionProof(index, size, root, (*path, root), "")
            assert root_from_path(leaf, longer) is None


def test_the_layouts_used_here_exist() -> None:
    for layout, key in (REKOR1, REKOR2):
        assert Path(SIGFIX / "layouts" / layout / "oci-layout").is_file()
        assert (SIGFIX / "keys" / f"{key}.pub").is_file()
