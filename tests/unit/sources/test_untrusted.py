"""Attacks on every parser of untrusted bytes: whatever comes in, only our own errors come out."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_imager.errors import LocalImagerError
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Digest, Reference
from local_imager.sources.bundle import parse_bundle
from local_imager.sources.catalog import parse_extensions, parse_overlays
from local_imager.sources.checkpoint import verify_checkpoint
from local_imager.sources.keys import load_pem_key
from local_imager.sources.logbody import Signed, check_body
from local_imager.sources.reasons import Rejected
from local_imager.sources.statement import (
    PREDICATE_IMAGE_SIGNATURE,
    Envelope,
    check_simple_signing,
    check_statement,
)
from local_imager.sources.tlog import InclusionProof, parse_legacy_entry, verify_entry
from local_imager.sources.trust_entries import policy_from_entries
from local_imager.sources.trusted_root import load_trusted_root, parse_trusted_root
from local_imager.sources.unpack import extract_files
from local_imager.sources.verify import verify_image
from tests.unit.sources.forge import Forge, Signing, tar_of

SIGFIX: Final = Path(__file__).parents[2] / "golden" / "sigfix"
ROOT: Final = load_trusted_root(SIGFIX / "trust" / "trusted_root.json")
TRIES: Final = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DIGEST: Final = Digest("ab" * 32)


def blob_of(layout: str, needle: bytes) -> bytes:
    """The one blob of a fixture that holds this text, the shortest if there are several."""
    blobs = [p.read_bytes() for p in (SIGFIX / "layouts" / layout / "blobs/sha256").iterdir()]
    return min((blob for blob in blobs if needle in blob), key=len)


BUNDLES: Final = [
    blob_of("key-p256-bundle-tlog", b'"dsseEnvelope"'),
    blob_of("key-rsa2048-bundle-rekor1", b'"dsseEnvelope"'),
    blob_of("keyless-bundle-rekor1-tsa", b'"dsseEnvelope"'),
]
LEGACY: Final = json.loads(blob_of("key-p256-legacy-tlog", b"SignedEntryTimestamp"))["layers"][0]
ANNOTATION: Final[str] = LEGACY["annotations"]["dev.sigstore.cosign/bundle"]
PAYLOAD: Final = Signing().simple_payload(DIGEST)
STATEMENT: Final = base64.b64decode(json.loads(Signing().bundle(DIGEST))["dsseEnvelope"]["payload"])


def json_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        found += json_paths(item, (*path, key))
    return found


STRANGE: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["", "AAAA", "🙂", "\ud800", "0", "-1", "9" * 30, "=" * 5, "A" * 100_000]),
    st.lists(st.none(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)


@st.composite
def mutated_json(draw: st.DrawFn, document: Any) -> bytes:
    """A document with some places replaced, removed or doubled."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in json_paths(changed) if path]
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "remove", "double"]))
        if action == "replace":
            parent[path[-1]] = draw(STRANGE)
        elif action == "remove":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(parent[path[-1]])
        else:
            parent[str(path[-1]) + "x"] = parent[path[-1]]
    return json.dumps(changed).encode()


@st.composite
def mutated_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with some flipped, cut out or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        action = draw(st.sampled_from(["flip", "cut", "insert"]))
        if action == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del changed[at : at + draw(st.integers(1, 600))]
        else:
            changed[at:at] = draw(st.binary(max_size=64))
    return bytes(changed)


def clean(call: Callable[[], object]) -> None:
    """Run; only our own errors may come out, and they have a message."""
    try:
        call()
    except LocalImagerError as error:
        assert error.message


def either(data: bytes) -> st.SearchStrategy[bytes]:
    """Mutations of a JSON document, as a document and as bytes."""
    return mutated_json(json.loads(data)) | mutated_bytes(data)


@TRIES
@given(st.one_of(*(either(bundle) for bundle in BUNDLES)))
def test_bundles(untrusted: bytes) -> None:
    def run() -> None:
        bundle = parse_bundle(untrusted)
        for entry in bundle.log_entries:
            verify_entry(entry, ROOT, proof_required=True, proven_time=None)
            check_body(entry, Signed(b"", b"", b"data", b"payload"))
        if bundle.envelope is not None:
            check_statement(bundle.envelope, DIGEST, PREDICATE_IMAGE_SIGNATURE)

    clean(run)


@TRIES
@given(st.sampled_from(range(len(BUNDLES))), st.data())
def test_log_bodies(number: int, data: st.DataObject) -> None:
    entry = parse_bundle(BUNDLES[number]).log_entries[0]
    body = data.draw(either(entry.untrusted_body))
    document = json.loads(BUNDLES[number])
    item = document["verificationMaterial"]["tlogEntries"][0]
    item["canonicalizedBody"] = base64.b64encode(body).decode()

    def run() -> None:
        changed = parse_bundle(json.dumps(document).encode()).log_entries[0]
        check_body(changed, Signed(b"s", b"k", b"data", b"payload"))

    clean(run)


@TRIES
@given(either(ANNOTATION.encode()))
def test_log_annotations(untrusted: bytes) -> None:
    def run() -> None:
        text = untrusted.decode("utf-8", "surrogatepass" if b"\xed" in untrusted else "replace")
        entry = parse_legacy_entry(text)
        verify_entry(entry, ROOT, proof_required=False, proven_time=None)

    try:
        clean(run)
    except UnicodeDecodeError:
        pass  # the test's own decoding, not ours


@TRIES
@given(either(PAYLOAD))
def test_simple_signing_payloads(untrusted: bytes) -> None:
    clean(lambda: check_simple_signing(untrusted, DIGEST))


@TRIES
@given(either(STATEMENT) | st.binary(max_size=300))
def test_statements(untrusted: bytes) -> None:
    envelope = Envelope("application/vnd.in-toto+json", untrusted, (b"s",))
    clean(lambda: check_statement(envelope, DIGEST, PREDICATE_IMAGE_SIGNATURE))


@TRIES
@given(either((SIGFIX / "trust" / "trusted_root.json").read_bytes()))
def test_trusted_roots(untrusted: bytes) -> None:
    clean(lambda: parse_trusted_root(untrusted, "test"))


@TRIES
@given(
    st.text(max_size=200) | st.sampled_from(["a\n1\nAA==\n\n— a AAAA\n", "\n\n", "a\n0\n\n\n— "])
)
def test_checkpoints(untrusted: str) -> None:
    clean(lambda: verify_checkpoint(untrusted, ROOT.logs[0], 1, b"\0" * 32))


@TRIES
@given(st.integers(0, 1 << 63), st.integers(0, 1 << 63), st.lists(st.binary(max_size=32)))
def test_audit_paths_of_any_shape(index: int, size: int, hashes: list[bytes]) -> None:
    from local_imager.sources.tlog import root_from_path

    proof = InclusionProof(index, size, b"", tuple(hashes[:64]), "")
    root = root_from_path(b"\1" * 32, proof)
    assert root is None or len(root) == 32


@TRIES
@given(mutated_bytes(Signing().pem.encode()))
def test_keys(untrusted: bytes) -> None:
    clean(lambda: load_pem_key(untrusted, "sha256", "test"))


LINE: Final = f"ghcr.io/siderolabs/gvisor:v1@{DIGEST}"
DESCRIPTIONS: Final = f"{LINE}:\n  author: A\n  description: |\n    text\n".encode()
OVERLAYS: Final = f"overlays:\n- name: a\n  image: ghcr.io/a/b:v1\n  digest: {DIGEST}\n".encode()


@TRIES
@given(mutated_bytes(LINE.encode()), mutated_bytes(DESCRIPTIONS), mutated_bytes(OVERLAYS))
def test_catalogues(lines: bytes, descriptions: bytes, overlays: bytes) -> None:
    clean(lambda: parse_extensions(lines, b"", "ghcr.io"))
    clean(lambda: parse_extensions(LINE.encode(), descriptions, "ghcr.io"))
    clean(lambda: parse_overlays(overlays, "ghcr.io"))


@TRIES
@given(untrusted=mutated_bytes(tar_of({"a/b": b"1" * 700, "c" * 150: b"2"})), packed=st.booleans())
def test_archives(untrusted: bytes, packed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("layer")
    layer = folder / "layer"
    layer.write_bytes(gzip.compress(untrusted) if packed else untrusted)
    clean(lambda: extract_files([layer], ["a/b"], folder / "out"))


@TRIES
@given(untrusted=mutated_bytes(gzip.compress(tar_of({"a": b"1" * 7000}), mtime=0)))
def test_packed_layers(untrusted: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("layer")
    layer = folder / "layer"
    layer.write_bytes(untrusted)
    clean(lambda: extract_files([layer], ["a"], folder / "out"))


@lru_cache
def _signed(digest: Digest) -> tuple[Signing, bytes]:
    """Sign once: a key and a signature of another length each time would change what is drawn."""
    signing = Signing()
    return signing, signing.bundle(digest)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_whole_layout_with_changed_blobs(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Blobs are changed and named by their new digests, as one who owns the registry can do."""
    forge = Forge(tmp_path_factory.mktemp("forge") / "upstream")
    top = forge.image("siderolabs/imager", "v1.9.0", {"a": b"1"}, ("amd64",))
    signing, bundle = _signed(top.digest)
    forge.sign_bundle("siderolabs/imager", top, data.draw(either(bundle)))
    reference: Reference = forge.reference("siderolabs/imager", "v1.9.0")
    policy = policy_from_entries([{"pattern": "**", "key": signing.pem}])
    source = LayoutSource.open(forge.layout.path)
    clean(lambda: verify_image(source, reference, top, policy))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"mediaType":[]}',
        b"null",
        b"[]",
        b'{"a":1,"a":2}',
        b"[" * 100_000,
        b'{"a":' * 50 + b"1" + b"}" * 50,
        b'{"mediaType":"\\ud800"}',
        '{"mediaType":"x"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a":1e999}',
        b'{"a":NaN}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"{" + b" " * (5 << 20) + b"}",
    ],
)
def test_json_that_other_readers_may_take(data: bytes) -> None:
    with pytest.raises(Rejected):
        parse_bundle(data)


def test_a_yaml_alias_bomb_is_refused() -> None:
    bomb = b"a: &a [x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)
    )
    with pytest.raises(LocalImagerError, match="alias"):
        parse_overlays(bomb, "ghcr.io")
