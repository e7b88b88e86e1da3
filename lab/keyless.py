"""A second set of the lab's images, signed without keys that last, by a private Sigstore.

The Sigstore is the small Go program in `go/keyless`: it makes authorities, logs and keys, signs,
and forgets every key when it ends. Its certificates name the issuer of the official images and an
identity of the lab's own, so the official policy refuses what one of the same shape accepts here.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.console import run
from lab.imagesets import ImageSet, VersionParts
from lab.oci import CONFIG, INDEX, MANIFEST, REF_NAME, Descriptor, Layout
from lab.place import KEYLESS_PREFIX, Place
from lab.signing import Signable
from lab.steps import Facts, StepResult, do_step

ISSUER = "https://accounts.google.com"
IDENTITY = "releasemgr-svc@lab-production.iam.gserviceaccount.com"
IDENTITY_PATTERN = (
    r"(@lab\.local-imager\.test$|^releasemgr-svc@lab-production\.iam\.gserviceaccount\.com$)"
)
"""The official policy's pattern with the lab's names in it."""

SOURCE = Path(__file__).parent / "go" / "keyless"

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_EMPTY = "application/vnd.oci.empty.v1+json"
_SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"


class _OwnDigests(Layout):
    """Adds a word to each index, so that this set's digests are its own and its blobs are shared.

    With equal digests a layout reader could take one set's signatures for the other's.
    """

    __slots__ = ()

    def put_index(self, manifests: Sequence[Descriptor]) -> Descriptor:
        return self.put_json(
            INDEX,
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": list(manifests),
                "annotations": {"org.opencontainers.image.vendor": "local-imager lab, keyless"},
            },
        )


def source_digest() -> str:
    """Digest of the Go program's files."""
    total = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        if path.suffix not in (".go", ".mod", ".sum"):
            continue
        content = path.read_bytes()
        total.update(f"{path.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def compile_signer(place: Place) -> StepResult:
    """Compile the Go program; its modules are those of cosign, so little of it is new."""

    def work(folder: Path) -> Facts:
        env = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-buildvcs=false",
            "GOTOOLCHAIN": "auto",
            "GOWORK": "off",
        }
        argv: list[str | Path] = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w"]
        run([*argv, "-o", folder / "keyless", "."], cwd=SOURCE, env=env)
        return {"source": source_digest()}

    inputs = {"source": source_digest()}
    return do_step(place, "keyless-signer", "compiling the private Sigstore", inputs, work)


def keyless_versions(versions: Sequence[str]) -> list[str]:
    """Return the oldest and the newest of the lab's versions (sorted): one of each form."""
    return list(dict.fromkeys((versions[0], versions[-1])))


def put_images(layout: Layout, parts: Sequence[VersionParts], work: Path) -> list[Signable]:
    """Enter the images of these versions under the prefix of this set; return what to sign."""
    work.mkdir()
    own = _OwnDigests(layout.root, layout.entries)
    signables: list[Signable] = []
    for one in parts:
        before = len(layout.entries)
        ImageSet(own, KEYLESS_PREFIX, one, work).put_all()
        signables += [
            Signable(entry["annotations"][REF_NAME], entry["digest"], one.version)
            for entry in layout.entries[before:]
        ]
    return signables


def sign_images(
    place: Place,
    signer: StepResult,
    layout: Layout,
    images: Sequence[Signable],
    identity: str = IDENTITY,
) -> Path:
    """Sign the images, enter the signatures, and return the trusted root that they verify with.

    All of one run come from one Sigstore: when an image is new, all are signed anew.
    """
    asked = {
        "issuer": ISSUER,
        "identity": identity,
        "images": [
            {
                "name": image.reference.rpartition(":")[0],
                "digest": image.digest,
                "form": "bundle" if image.bundled else "sig",
            }
            for image in images
        ],
    }

    def work(folder: Path) -> Facts:
        request = folder / "request.json"
        request.write_text(json.dumps(asked), encoding="utf-8")
        run([signer.folder / "keyless", request, folder])
        root = (folder / "trusted_root.json").read_bytes()
        return {"trusted_root": hashlib.sha256(root).hexdigest()}

    made = do_step(
        place,
        "keyless-signatures",
        f"signing {len(images)} images without keys",
        {"signer": signer.content, "asked": asked},
        work,
    )
    signatures = json.loads((made.folder / "signatures.json").read_bytes())
    for image, signature in zip(images, signatures, strict=True):
        _enter(layout, image, signature)
    return made.folder / "trusted_root.json"


def _enter(layout: Layout, image: Signable, signature: Mapping[str, Any]) -> None:
    entry = _bundle(layout, image, signature) if image.bundled else _older_form(layout, signature)
    name = image.reference.rpartition(":")[0]
    layout.name(entry, f"{name}:{image.signature_tag}")


def _bundle(layout: Layout, image: Signable, signature: Mapping[str, Any]) -> Descriptor:
    """Store a bundle as a referrer, and the list of referrers that its fallback tag names."""
    layer = layout.put(_BUNDLE, signature["bundle"].encode())
    size = layout.blob_path(image.digest).stat().st_size
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": _BUNDLE,
        "config": {**layout.put(_EMPTY, b"{}"), "artifactType": _BUNDLE},
        "layers": [layer],
        "subject": {"mediaType": INDEX, "digest": image.digest, "size": size},
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": _PREDICATE,
        },
    }
    return layout.put_index([{**layout.put_json(MANIFEST, manifest), "artifactType": _BUNDLE}])


def _older_form(layout: Layout, signature: Mapping[str, Any]) -> Descriptor:
    """Store cosign's older form: the payload as a layer, all else in the layer's annotations."""
    layer = layout.put(_SIMPLE_SIGNING, signature["payload"].encode())
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.put_json(CONFIG, config),
        "layers": [{**layer, "annotations": signature["annotations"]}],
    }
    return layout.put_json(MANIFEST, manifest)
