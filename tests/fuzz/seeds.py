"""Writes the corpus anew from the signature fixtures: ``python -m tests.fuzz.seeds``.

Files whose names begin with ``found-`` came from the fuzzer and are kept.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import zstandard

from local_imager.deliver.bundle.deltas.similar import take_sample
from local_imager.deliver.bundle.deltas.windows import Head, delta_windows, render_head
from local_imager.deliver.bundle.form.inventory import Inventory, Named, render_inventory
from local_imager.oci.model import Digest
from tests.bundlefiles import (
    Member,
    make_sample,
    packed,
    pax_header,
    strange_header,
    written,
)
from tests.fuzz.bootseeds import bootfiles
from tests.fuzz.deltas import BASE, METHODS, Memory
from tests.fuzz.diskseeds import diskfiles
from tests.fuzz.driver import CORPUS
from tests.fuzz.factories import seeds as factories
from tests.fuzz.inspections import seeds as inspections
from tests.fuzz.material import GENUINE, KEYED, KEYLESS, LEGACY, ROOT_PATH, SIGFIX, blobs_of
from tests.fuzz.peseeds import pefiles

Seed = tuple[str, str, bytes]
_MAX_SEED_BYTES: Final = 16 * 1024
_SCHEMATICS: Final = Path(__file__).parents[2] / "schematics"


def signatures() -> Iterator[Seed]:
    """Bundles and what is inside them."""
    for name, genuine in zip((*KEYLESS, *KEYED), GENUINE, strict=True):
        document = json.loads(genuine.data)
        entry = genuine.bundle.log_entries[0]
        yield "bundle", name, genuine.data
        yield "statement", name, genuine.envelope.untrusted_payload
        yield "statement", f"envelope-{name}", json.dumps(document["dsseEnvelope"]).encode()
        yield "logbody", name, entry.untrusted_body
        if entry.proof is not None:
            yield "checkpoint", name, entry.proof.checkpoint.encode()
        for stamp in genuine.bundle.timestamps:
            yield "timestamp", name, stamp
        if genuine.bundle.certificate:
            yield "certificate", name, genuine.bundle.certificate


def layouts() -> Iterator[Seed]:
    """Indexes, manifests, lists of referrers and annotations of the fixtures' layouts."""
    for name in (*KEYLESS[:1], *KEYED, *LEGACY):
        index = (SIGFIX / "layouts" / name / "index.json").read_bytes()
        yield "index", name, index
        for digest, data in blobs_of(name).items():
            if b'"manifests"' not in data and b'"layers"' not in data:
                if b'"critical"' in data:
                    yield "payload", name, data
                continue
            document = json.loads(data)
            letter = b"i" if "manifests" in document else b"m"
            yield "manifest", f"{name}-{digest.short}", letter + data
            yield "referrers", f"{name}-{digest.short}", data
            for layer in document.get("layers", []):
                yield from annotated(name, layer.get("annotations", {}))
    yield "manifest", "marker", b'o{"imageLayoutVersion":"1.0.0"}'


def annotated(name: str, values: dict[str, Any]) -> Iterator[Seed]:
    """What the older form keeps in annotations."""
    if "dev.sigstore.cosign/bundle" in values:
        yield "logentry", name, values["dev.sigstore.cosign/bundle"].encode()
    if "dev.sigstore.cosign/certificate" in values:
        yield "certificate", f"pem-{name}", values["dev.sigstore.cosign/certificate"].encode()


def roots_and_keys() -> Iterator[Seed]:
    """The private instance's trusted root, what it lists, and the keys."""
    data = ROOT_PATH.read_bytes()
    yield "root", "private", data
    document = json.loads(data)
    for number, log in enumerate((*document["tlogs"], *document["ctlogs"])):
        yield "key", f"log-{number}", base64.b64decode(log["publicKey"]["rawBytes"])
    for holder in ("certificateAuthorities", "timestampAuthorities"):
        chain = document[holder][0]["certChain"]["certificates"]
        for number, one in enumerate(chain):
            yield "certificate", f"{holder}-{number}", base64.b64decode(one["rawBytes"])
    for name in ("p256", "rsa2048", "ed25519", "rsa2048.pkcs1"):
        yield "certificate", f"key-{name}", (SIGFIX / "keys" / f"{name}.pub").read_bytes()


def _tar(form: int, *members: tuple[str, bytes, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    # One end block is enough, and the padding to ten kilobytes is nothing to learn from.
    return buffer.getvalue().rstrip(b"\0") + bytes(-len(buffer.getvalue().rstrip(b"\0")) % 512)


def archives() -> Iterator[Seed]:
    """Layers and layouts in each format of tar."""
    layer = (
        ("a/", tarfile.DIRTYPE, b""),
        ("a/b", tarfile.REGTYPE, b"content\n"),
        ("link", tarfile.SYMTYPE, b"a/b"),
        ("usr/lib/x", tarfile.LNKTYPE, b"a/b"),
        ("long/" + "name/" * 40, tarfile.REGTYPE, b"x" * 600),
        ("dev", tarfile.CHRTYPE, b""),
    )
    over = (("a/.wh.b", tarfile.REGTYPE, b""), ("usr/.wh..wh..opq", tarfile.REGTYPE, b""))
    for name, form in (
        ("ustar", tarfile.USTAR_FORMAT),
        ("gnu", tarfile.GNU_FORMAT),
        ("pax", tarfile.PAX_FORMAT),
    ):
        plain = _tar(form, *(layer if form != tarfile.USTAR_FORMAT else layer[:4]))
        yield "layertar", name, plain
        yield "layerfiles", name, plain + b"<next layer>" + _tar(form, *over)
        yield "layerpacked", f"gzip-{name}", gzip.compress(plain, mtime=0)
        yield "layerpacked", f"zstd-{name}", zstandard.ZstdCompressor().compress(plain)
        yield "layouttar", name, _layout_tar(form)


def _layout_tar(form: int) -> bytes:
    folder = SIGFIX / "layouts" / "key-p256-legacy"
    members = [("oci-layout", tarfile.REGTYPE, b'{"imageLayoutVersion":"1.0.0"}')]
    members.append(("index.json", tarfile.REGTYPE, (folder / "index.json").read_bytes()))
    for digest, data in blobs_of("key-p256-legacy").items():
        members.append((f"blobs/sha256/{digest.hex}", tarfile.REGTYPE, data))
    members.append(("long/" + "a" * 90 + "/b", tarfile.REGTYPE, b""))
    return _tar(form, *members)


def texts() -> Iterator[Seed]:
    """Catalogues and profiles of the shape that the official images have, and schematics."""
    digest = "sha256:" + "ab" * 32
    lines = [f"ghcr.io/siderolabs/{name}:20250101.0@{digest}" for name in ("gvisor", "i915")]
    yield "catalogue", "image-digests", "\n".join(lines).encode()
    described = "".join(f"{line}:\n  author: A\n  description: |\n    Text.\n" for line in lines)
    yield "catalogue", "descriptions", described.encode()
    overlay = f"overlays:\n- name: rpi\n  image: siderolabs/sbc:v1\n  digest: {digest}\n"
    yield "catalogue", "overlays", overlay.encode()
    profile = (
        "arch: arm64\nplatform: metal\ncustomization:\n  extraKernelArgs:\n  - console=ttyS0\n"
        "output:\n  kind: image\n  imageOptions:\n    bootloader: grub\n    diskSectorSize: 4096\n"
        '    diskFormat: "raw"\n  isoOptions: {bootloader: sd-boot, sdBootEnrollKeys: off}\n'
    )
    yield "overlay", "profile", profile.encode()
    for path in sorted(_SCHEMATICS.glob("*.yaml")):
        yield "schematic", path.stem, path.read_bytes()


def registries() -> Iterator[Seed]:
    """Headers and dialogues of registries that ask who we are, page, break off and redirect."""
    realm = b'Bearer realm="https://auth.example/token",service="registry.example"'
    yield "header", "challenge", b"c" + realm + b',scope="repository:siderolabs/imager:pull"'
    yield "header", "challenge-both", b'cBasic realm="a \\"b\\"", ' + realm
    yield "header", "link", b'l</v2/siderolabs/imager/tags/list?last=v1&n=1000>; rel="next"'
    yield "header", "link-full", b"l<https://registry.example/v2/x?n=2>; rel=next, <y>; rel=prev"
    yield "header", "range", b"rbytes 100-199/200|100"
    yield "header", "location", b"phttps://cdn.example:8443/blob?signature=a%2Fb"
    yield "header", "location-relative", b"p../../other/blobs/x"
    yield "header", "wait", b"w120"
    yield "header", "wait-date", b"wWed, 21 Oct 2026 07:28:00 GMT"
    yield from dialogues(realm)


def dialogues(realm: bytes) -> Iterator[Seed]:
    """Whole dialogues: what a registry answers, request after request."""
    image = b"application/vnd.oci.image.index.v1+json"
    index = b'{"schemaVersion":2,"mediaType":"' + image + b'","manifests":[]}'
    asked = b"401\nWWW-Authenticate: " + realm
    token = b'200\n\n{"token":"good","expires_in":300}'
    sent = b"200\nContent-Type: " + image + b"\n\n" + index
    link = b'200\nLink: </v2/siderolabs/imager/tags/list?page=2>; rel="next"\n\n{"tags":["v1"]}'
    blob = bytes(range(200))
    part = b"206\nContent-Range: bytes 100-199/200\nContent-Length: 100\n\n" + blob[100:]
    moved = b"307\nLocation: https://cdn.example/blob"
    whole = {
        "token": (b"m", asked, token, sent),
        "token-refused": (b"m", asked, b"403"),
        "basic": (b"m", b'401\nWWW-Authenticate: Basic realm="x"', sent),
        "busy": (b"m", b"429\nRetry-After: 3", b"503", sent),
        "refusal": (b"d", b'404\n\n{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}'),
        "pages": (b"t", link, b'200\n\n{"tags":["v2"]}'),
        "referrers": (b"r", sent),
        "fallback": (b"r", b"404", sent),
        "redirect": (b"b", moved, b"200\nContent-Length: 200\n\n" + blob),
        "resumed": (b"b", b"200\nContent-Length: 200\n\n" + blob[:100], part),
        "part": (b"o", part),
    }
    for name, (question, *said) in whole.items():
        yield "dialogue", name, question + b"\n--\n".join(said)


def bundles() -> Iterator[Seed]:
    """A bundle in one file and in parts, plain, compressed and damaged, and its manifest."""
    whole = make_sample({"a1": b"one", "s1": b"shared", "b1": b""})
    split = whole.split([whole.segment("s1", 0, 2)], [whole.segment("s1", 2, 6), whole.whole("a1")])
    split = split.split(*split.bundle.parts, [split.whole("b1")])
    members = whole.members()
    members.insert(4, Member("../x", b"", strange_header("../x", type=b"2", linkname="/etc")))
    members.insert(5, Member("x", b"", pax_header("x", {"path": "/y", "size": "3"})))
    members[-1].filling = b"x" * 512
    for name, data in (
        ("whole", whole.part()),
        ("first", split.part(1)),
        ("second", split.part(2)),
        ("damaged", written(members)),
    ):
        yield "bundlefile", name, data
        yield "bundlepacked", name, packed(data)
    yield "bundlemanifest", "whole", whole.manifest
    yield "bundlemanifest", "split", split.manifest
    yield "bundlemanifest", "label", split.members(2)[1].content


def deltas() -> Iterator[Seed]:
    """An inventory, and a payload of each method."""
    blobs = {Digest.of(b"%d" % number): number for number in range(3)}
    named = (Named("registry.example/a/b:v1", min(blobs)),)
    yield "inventory", "plain", render_inventory(Inventory(blobs))
    yield "inventory", "names", render_inventory(Inventory(blobs, named))
    target = BASE[:2000] + b"put in" + BASE[1500:5000]
    records = delta_windows(Memory(target), Memory(BASE), take_sample([BASE]))
    windows = b"".join(record for record, _ in records)
    gzip_header = bytes.fromhex("1f8b08000000000000ff")
    for letter, header in ((b"w", b""), (b"g", gzip_header), (b"z", b"")):
        library = "" if letter == b"w" else "a library"
        head = render_head(Head(len(target), len(BASE), library, header))
        yield "delta", METHODS[letter].partition("+")[0].replace(":", "-"), letter + head + windows


def main() -> None:
    """Replace every seed that is not a finding."""
    for old in CORPUS.rglob("*"):
        if old.is_file() and not old.name.startswith("found-") and old.suffix != ".md":
            old.unlink()
    total = 0
    for source in (
        signatures,
        layouts,
        roots_and_keys,
        archives,
        texts,
        registries,
        factories,
        bundles,
        deltas,
        bootfiles,
        diskfiles,
        pefiles,
        inspections,
    ):
        for harness, name, data in source():
            assert len(data) <= _MAX_SEED_BYTES, f"{harness}/{name} has {len(data)} bytes"
            folder = CORPUS / harness
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            total += len(data)
    sys.stdout.write(f"{total} bytes\n")


if __name__ == "__main__":
    main()
