"""Rules that hold for every signature document, tried on genuine ones changed in every place."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_imager.errors import LocalImagerError, SourceError
from local_imager.oci.model import (
    MAX_DESCRIPTORS,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Digest,
    parse_manifest,
)
from local_imager.sources.blob import verify_blob
from local_imager.sources.bundle import MAX_LOG_ENTRIES, MAX_TIMESTAMPS, parse_bundle
from local_imager.sources.catalog import MAX_ENTRIES, MAX_YAML_NODES, parse_extensions, parse_yaml
from local_imager.sources.checkpoint import verify_checkpoint
from local_imager.sources.reasons import Rejected
from local_imager.sources.statement import (
    MAX_ENVELOPE_SIGNATURES,
    MAX_SUBJECTS,
    PAYLOAD_TYPE_IN_TOTO,
    PREDICATE_IMAGE_SIGNATURE,
    Envelope,
    check_simple_signing,
    check_statement,
)
from local_imager.sources.tarstream import TarStream
from local_imager.sources.tlog import MAX_PROOF_HASHES, parse_legacy_entry
from local_imager.sources.trusted_root import MAX_AUTHORITIES, MAX_CHAIN, parse_trusted_root
from local_imager.sources.untrusted_json import MAX_DEPTH, parse_object
from tests.fuzz.material import GENUINE, KEYED, KEYLESS, ROOT, ROOT_PATH, SIGNERS, Genuine

NAMES: Final = (*KEYLESS, *KEYED)
BY_NAME: Final = dict(zip(NAMES, GENUINE, strict=True))
SIGNER_OF: Final = dict(zip(NAMES, (SIGNERS[0], SIGNERS[0], SIGNERS[0], *SIGNERS[1:]), strict=True))
# Refusing costs less than this, whatever is in the document.
MAX_REFUSAL_S: Final = 3.0
Document = Any


def verify(name: str, data: bytes) -> None:
    """Verify a changed bundle as the genuine one is verified."""
    genuine, signer = BY_NAME[name], SIGNER_OF[name]
    verify_blob(genuine.artifact, data, signer, predicate_type=PREDICATE_IMAGE_SIGNATURE)


def refused_quickly(call: Callable[[], object]) -> LocalImagerError:
    """Check that it is refused in little processor time, and return the refusal."""
    began_s = time.process_time()
    with pytest.raises(LocalImagerError) as caught:
        call()
    assert time.process_time() - began_s < MAX_REFUSAL_S
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_the_genuine_ones_verify(name: str) -> None:
    verify(name, BY_NAME[name].data)


# One byte changed.


def protected_fields(bundle: Document) -> Iterator[tuple[str, Document, str]]:
    """Every field of a bundle that a signature or a hash covers: name, holder and key."""
    material = bundle["verificationMaterial"]
    entry = material["tlogEntries"][0]
    yield "payload", bundle["dsseEnvelope"], "payload"
    yield "signature", bundle["dsseEnvelope"]["signatures"][0], "sig"
    yield "entry", entry, "canonicalizedBody"
    yield "log", entry["logId"], "keyId"
    yield "root", entry["inclusionProof"], "rootHash"
    if "certificate" in material:
        yield "certificate", material["certificate"], "rawBytes"
    if "inclusionPromise" in entry:
        yield "promise", entry["inclusionPromise"], "signedEntryTimestamp"


@pytest.mark.parametrize(("name", "step"), [(KEYLESS[0], 2), (KEYLESS[1], 7), (KEYED[0], 2)])
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_one_changed_byte_anywhere_is_never_verified(name: str, step: int) -> None:
    bundle = json.loads(BY_NAME[name].data)
    for what, holder, key in protected_fields(bundle):
        kept = holder[key]
        genuine = base64.b64decode(kept)
        for at in range(0, len(genuine), step):
            changed = bytearray(genuine)
            changed[at] ^= 1 << (at % 8)
            holder[key] = base64.b64encode(changed).decode()
            try:
                verify(name, json.dumps(bundle).encode())
            except Rejected:
                continue
            pytest.fail(f"{what}: byte {at} of {len(genuine)} may be changed")
        holder[key] = kept
    verify(name, json.dumps(bundle).encode())


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_of_a_checkpoint_that_is_signed(name: str) -> None:
    entry = BY_NAME[name].bundle.log_entries[0]
    assert entry.proof is not None
    log = next(log for log in ROOT.logs if log.log_id == entry.log_id)
    note = entry.proof.checkpoint
    verify_checkpoint(note, log, entry.proof.tree_size, entry.proof.root_hash)
    for at in range(note.index("\n\n") + 1):
        changed = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
        with pytest.raises(Rejected):
            verify_checkpoint(changed, log, entry.proof.tree_size, entry.proof.root_hash)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_any_changed_byte_of_a_bundle_leaves_what_was_signed(
    name: str, data: st.DataObject
) -> None:
    """Some bytes are hints or spaces; what is accepted still says what the genuine one says."""
    genuine = BY_NAME[name]
    changed = bytearray(genuine.data)
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] = data.draw(st.integers(0, 255).filter(lambda value: value != changed[at]))
    try:
        verify(name, bytes(changed))
    except Rejected:
        return
    parsed = parse_bundle(bytes(changed))
    assert parsed.envelope == genuine.envelope
    assert parsed.certificate == genuine.bundle.certificate


# The form of JSON.


def places(value: Document, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every object of a document, by its path."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def at_place(document: Document, path: tuple[Any, ...]) -> Document:
    """Return the object at a path."""
    for key in path:
        document = document[key]
    return document


OBJECTS: Final = [(name, path) for name in NAMES for path in places(json.loads(BY_NAME[name].data))]


def shuffled(draw: Callable[[Any], Any], value: Document) -> Document:
    """The same document with the keys of each object in another order."""
    if isinstance(value, list):
        return [shuffled(draw, item) for item in value]
    if isinstance(value, dict):
        keys = draw(st.permutations(sorted(value)))
        return {key: shuffled(draw, value[key]) for key in keys}
    return value


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_the_order_of_keys_and_spaces_do_not_matter(name: str, data: st.DataObject) -> None:
    changed = shuffled(data.draw, json.loads(BY_NAME[name].data))
    indent = data.draw(st.sampled_from([None, 0, 3]))
    verify(name, json.dumps(changed, indent=indent).encode())


@pytest.mark.parametrize(("name", "path"), OBJECTS, ids=str)
def test_a_key_twice_or_unknown_is_refused_in_every_object(
    name: str, path: tuple[Any, ...]
) -> None:
    document = json.loads(BY_NAME[name].data)
    at_place(document, path)["marked"] = "here"
    unknown = json.dumps(document)
    for key, value in at_place(json.loads(BY_NAME[name].data), path).items():
        twice = unknown.replace('"marked": "here"', f"{json.dumps(key)}: {json.dumps(value)}")
        assert refused_quickly(partial(verify, name, twice.encode())).code == "malformed"
    assert refused_quickly(lambda: verify(name, unknown.encode())).code == "malformed"


def _statement(data: bytes) -> None:
    envelope = Envelope(PAYLOAD_TYPE_IN_TOTO, data, (b"s",))
    check_statement(envelope, Digest("ab" * 32), PREDICATE_IMAGE_SIGNATURE)


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    "manifest": lambda data: parse_manifest(data, MEDIA_MANIFEST, "manifest"),
    "index": lambda data: parse_manifest(data, MEDIA_INDEX, "index"),
    "bundle": parse_bundle,
    "statement": _statement,
    "payload": lambda data: check_simple_signing(data, Digest("ab" * 32)),
    "log entry": lambda data: parse_legacy_entry(data.decode()),
    "trusted root": lambda data: parse_trusted_root(data, "test"),
}


@pytest.mark.parametrize("parser", sorted(set(PARSERS) - {"index"}))
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 20_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["[", "{"])
def test_nesting_is_refused_at_any_depth(
    parser: str, levels: int, opening: bytes, closing: bytes
) -> None:
    inside = opening * levels + b"1" + closing * levels
    for document in (inside, b'{"a":' + inside + b"}", opening * levels):
        refused_quickly(partial(PARSERS[parser], document))


def test_an_index_may_hold_fields_that_are_not_known_but_not_without_end() -> None:
    """The image spec lets documents hold more than is known; nothing of it is looked into."""
    for levels, refused in ((MAX_DEPTH, False), (20_000, True)):
        data = b'{"more":' + b"[" * levels + b"]" * levels + b"}"
        if refused:
            refused_quickly(partial(PARSERS["index"], data))
        else:
            PARSERS["index"](data)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, MAX_DEPTH + 20))
def test_the_ceiling_on_depth_is_exact(levels: int) -> None:
    data = b'{"a":' * levels + b"1" + b"}" * levels
    if levels < MAX_DEPTH:
        assert parse_object(data, "test", 4096)
    else:
        assert refused_quickly(lambda: parse_object(data, "test", 4096)).code == "malformed"


# Counts.


def _many(genuine: Genuine, path: tuple[Any, ...], count: int) -> bytes:
    document = json.loads(genuine.data)
    items = at_place(document, path)
    items[:] = [items[0]] * count
    return json.dumps(document).encode()


MATERIAL: Final = "verificationMaterial"
STAMPS: Final = (MATERIAL, "timestampVerificationData", "rfc3161Timestamps")
HASHES: Final = (MATERIAL, "tlogEntries", 0, "inclusionProof", "hashes")


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ((MATERIAL, "tlogEntries"), MAX_LOG_ENTRIES),
        (STAMPS, MAX_TIMESTAMPS),
        (HASHES, MAX_PROOF_HASHES),
        (("dsseEnvelope", "signatures"), MAX_ENVELOPE_SIGNATURES),
    ],
    ids=["entries", "timestamps", "hashes", "signatures"],
)
def test_more_than_enough_of_anything_in_a_bundle(path: tuple[Any, ...], most: int) -> None:
    genuine = BY_NAME["keyless-bundle-rekor1-tsa"]
    document = json.loads(genuine.data)
    if path == HASHES:
        proof = document[MATERIAL]["tlogEntries"][0]["inclusionProof"]
        proof["hashes"] = [proof["rootHash"]]
        genuine = Genuine(json.dumps(document).encode(), genuine.bundle, genuine.envelope, b"")
    for count in (most + 1, most * 40):
        data = _many(genuine, path, count)
        assert refused_quickly(partial(parse_bundle, data)).code == "too-large"


def _manifest(count: int, listed: str) -> bytes:
    one = {"mediaType": MEDIA_MANIFEST, "digest": f"sha256:{'ab' * 32}", "size": 1}
    return json.dumps({"config": one, listed: [one] * count}).encode()


def _subjects(count: int) -> bytes:
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": PREDICATE_IMAGE_SIGNATURE,
        "subject": [{"digest": {"sha256": "ab" * 32}}] * count,
    }
    return json.dumps(document).encode()


def _root(key: str, count: int) -> bytes:
    document = json.loads(ROOT_PATH.read_bytes())
    if key == "certificates":
        chain = document["certificateAuthorities"][0]["certChain"]
        chain["certificates"] = chain["certificates"][:1] * count
    else:
        document[key] = document[key][:1] * count
    return json.dumps(document).encode()


LINE: Final = f"ghcr.io/siderolabs/gvisor:v1@sha256:{'ab' * 32}\n".encode()


@pytest.mark.parametrize(
    ("parse", "make", "most"),
    [
        (PARSERS["manifest"], lambda count: _manifest(count, "layers"), MAX_DESCRIPTORS),
        (PARSERS["statement"], _subjects, MAX_SUBJECTS),
        (PARSERS["trusted root"], lambda count: _root("tlogs", count), MAX_AUTHORITIES),
        (PARSERS["trusted root"], lambda count: _root("certificates", count), MAX_CHAIN),
        (lambda data: parse_extensions(data, b"", "ghcr.io"), lambda n: LINE * n, MAX_ENTRIES),
        (lambda data: parse_yaml(data, "test"), lambda n: b"- a\n" * n, MAX_YAML_NODES),
    ],
    ids=["layers", "subjects", "logs", "chain", "catalogue", "yaml"],
)
def test_more_than_enough_of_anything_else(
    parse: Callable[[bytes], object], make: Callable[[int], bytes], most: int
) -> None:
    if most != MAX_YAML_NODES:
        parse(make(most))
    refused_quickly(lambda: parse(make(most + 1)))
    refused_quickly(lambda: parse(make(most * 4)))


# Archives.

NAMES_IN_TAR: Final = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=150
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=80, deadline=None)
@given(
    files=st.dictionaries(NAMES_IN_TAR, st.binary(max_size=1200), max_size=5),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_archives_read_as_the_standard_library_writes_them(
    files: dict[str, bytes], form: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    stream = TarStream(buffer.read)
    found = {member.untrusted_name: b"".join(stream.content()) for member in stream}
    assert found == files


def test_extended_headers_without_end_do_not_grow_in_memory() -> None:
    record = b"".join(b"13 k%06d=v\n" % n for n in range(15_000))
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    block = header.tobuf(tarfile.USTAR_FORMAT) + record + bytes(-len(record) % 512)
    stream = TarStream(io.BytesIO(block * 20).read)
    began_s = time.process_time()
    with pytest.raises(SourceError, match="ends after an extended header"):
        list(stream)
    assert time.process_time() - began_s < MAX_REFUSAL_S
