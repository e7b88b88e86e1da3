"""Signing the lab's images with the real cosign, in the form that upstream used at the time."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.console import LabError, run, say
from lab.oci import INDEX, MANIFEST, Descriptor, Layout, hex_of, link_or_copy
from lab.place import NAME_PREFIX, Place, parse_version
from lab.registry import fetch_ok, fill_storage, running_registry, split_name

BUNDLES_SINCE = (1, 11, 5)
"""From this version on upstream signs with bundle referrers, before with `.sig` tags."""

_ACCEPT = f"{INDEX}, {MANIFEST}"


@dataclass(frozen=True, slots=True)
class Signable:
    """An image to be signed: its full name, and the Talos version whose habits apply."""

    reference: str
    digest: str
    version: str

    @property
    def bundled(self) -> bool:
        return parse_version(self.version) >= BUNDLES_SINCE

    @property
    def signature_tag(self) -> str:
        """Tag under which a registry keeps the signature."""
        return f"sha256-{hex_of(self.digest)}" + ("" if self.bundled else ".sig")

    @property
    def repository(self) -> str:
        return split_name(self.reference)[0]


def cosign_env() -> dict[str, str]:
    """Environment for cosign: no password on the throwaway key, no cache in the user's home."""
    return {**os.environ, "COSIGN_PASSWORD": "", "COSIGN_YES": "true"}


def make_key(place: Place) -> None:
    """Make the lab's ECDSA P-256 key pair, unless it is there."""
    private = place.keys / "lab.key"
    if private.exists() and place.public_key.exists():
        return
    argv: list[str | Path] = [
        place.bin / "cosign",
        "generate-key-pair",
        "--output-key-prefix",
        "lab",
    ]
    run(argv, cwd=place.keys, env=cosign_env())
    private.chmod(0o600)
    shutil.move(place.keys / "lab.pub", place.public_key)


def sign_images(
    place: Place, layout: Layout, images: list[Signable], registry_package: Path, work: Path
) -> None:
    """Sign each image and enter the signatures into the layout as a registry would hold them.

    A signature over the same digest by the same key is kept from an earlier build.
    """
    make_key(place)
    store = place.steps / "signatures" / _key_name(place)
    missing = [image for image in images if not (store / _file_name(image)).exists()]
    if missing:
        say(f"signing {len(missing)} images with cosign")
        fill_storage(layout, work / "storage")
        with running_registry(registry_package, work) as address:
            for image in missing:
                _sign(place, address, image)
                _harvest(address, image, store)
    for image in images:
        _enter(layout, image, store)


def _key_name(place: Place) -> str:
    return hashlib.sha256(place.public_key.read_bytes()).hexdigest()[:16]


def _file_name(image: Signable) -> str:
    return f"{image.repository.replace('/', '_')}@{image.signature_tag}.json"


def _sign(place: Place, address: str, image: Signable) -> None:
    argv: list[str | Path] = [place.bin / "cosign", "sign", "--key", place.keys / "lab.key"]
    argv += ["--use-signing-config=false", "--tlog-upload=false", "--allow-insecure-registry"]
    if not image.bundled:
        identity = image.reference.rpartition(":")[0]
        argv += ["--new-bundle-format=false", f"--sign-container-identity={identity}"]
    run([*argv, f"{address}/{image.repository}@{image.digest}"], env=cosign_env())


def _harvest(address: str, image: Signable, store: Path) -> None:
    """Fetch the signature's manifests and blobs from the registry and keep them by digest."""
    blobs: dict[str, bytes] = {}
    base = f"/v2/{image.repository}"
    top = fetch_ok(address, f"{base}/manifests/{image.signature_tag}", _ACCEPT)
    document = json.loads(top)
    for child in document.get("manifests", []):
        raw = fetch_ok(address, f"{base}/manifests/{child['digest']}", _ACCEPT)
        blobs[child["digest"]] = raw
        _harvest_blobs(address, base, json.loads(raw), blobs)
    if "layers" in document:
        _harvest_blobs(address, base, document, blobs)
    digest = f"sha256:{hashlib.sha256(top).hexdigest()}"
    blobs[digest] = top
    folder = store / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in blobs.items():
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != name:
            raise LabError(f"the registry returned other bytes than {name}")
        (folder / hex_of(name)).write_bytes(content)
    found = {
        "entry": {"mediaType": document["mediaType"], "digest": digest, "size": len(top)},
        "blobs": sorted(blobs),
    }
    (store / _file_name(image)).write_text(json.dumps(found))


def _harvest_blobs(
    address: str, base: str, manifest: dict[str, Any], blobs: dict[str, bytes]
) -> None:
    for blob in (manifest["config"], *manifest["layers"]):
        blobs[blob["digest"]] = fetch_ok(address, f"{base}/blobs/{blob['digest']}")


def _enter(layout: Layout, image: Signable, store: Path) -> None:
    found = json.loads((store / _file_name(image)).read_text())
    for digest in found["blobs"]:
        link_or_copy(store / "blobs" / hex_of(digest), layout.blob_path(digest))
    entry: Descriptor = found["entry"]
    layout.name(entry, f"{NAME_PREFIX}/{image.repository}:{image.signature_tag}")
