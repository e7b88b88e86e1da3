"""Checks of a finished lab: every blob's digest, every signature with the real cosign."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, run, say
from lab.keyless import IDENTITY, ISSUER
from lab.oci import Layout, hex_of
from lab.place import KEYLESS_PREFIX, Place
from lab.registry import fill_storage, running_registry, split_name
from lab.signing import BUNDLES_SINCE, cosign_env
from lab.steps import load_result


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: an image or blob, whether it is sound, and what was seen."""

    subject: str
    sound: bool
    seen: str


def verify_lab(place: Place) -> list[Finding]:
    """Re-hash all blobs and check all signatures; LabError when there is no lab to check."""
    try:
        layout = Layout.open(place.upstream)
        record = json.loads(place.record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise LabError(f"{place.root} holds no lab: python3 -m lab build") from problem
    say("hashing all blobs")
    findings = list(check_blobs(layout))
    say("checking all signatures with cosign")
    findings += check_signatures(place, layout, record["images"])
    return findings


def check_blobs(layout: Layout) -> Iterator[Finding]:
    """Yield a finding for each blob that is wrong or missing, and one for the sum of the rest."""
    present = {path.name for path in (layout.root / "blobs/sha256").iterdir()}
    size_bytes = 0
    for name in sorted(present):
        path = layout.root / "blobs/sha256" / name
        with path.open("rb") as blob:
            digest = hashlib.file_digest(blob, "sha256").hexdigest()
        size_bytes += path.stat().st_size
        if digest != name:
            yield Finding(f"sha256:{name}", False, f"holds other bytes (sha256:{digest})")
    for digest in sorted(_named_blobs(layout)):
        if hex_of(digest) not in present:
            yield Finding(digest, False, "missing")
    yield Finding("blobs", True, f"{len(present)} blobs, {size_bytes / 1e6:.0f} MB, hashed")


def _named_blobs(layout: Layout) -> set[str]:
    named = set()
    for entry in layout.entries:
        for manifest in layout.manifests_below(entry):
            named.add(manifest["digest"])
            named |= {blob["digest"] for blob in layout.blobs_of(manifest)}
    return named


def check_signatures(place: Place, layout: Layout, images: dict[str, str]) -> list[Finding]:
    """Verify each image's signature, through a registry, with cosign.

    cosign gets the digest and the lab's key (no transparency log), or for the keyless set the
    identity and the trusted root (log, SCT and all); no network.
    """
    package = load_result(place, "registry")
    if package is None:
        raise LabError("the lab is incomplete: python3 -m lab build")
    names = set(layout.named())
    with tempfile.TemporaryDirectory(dir=place.services) as scratch:
        fill_storage(layout, Path(scratch) / "storage")
        with running_registry(package.folder / "unpacked", Path(scratch)) as address:

            def check(item: tuple[str, str]) -> Finding:
                return _check_one(place, address, names, *item)

            with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
                return list(pool.map(check, sorted(images.items())))


def _check_one(place: Place, address: str, names: set[str], name: str, digest: str) -> Finding:
    repository, tag = split_name(name)
    tags = f"{name.removesuffix(':' + tag)}:sha256-{hex_of(digest)}"
    forms = [
        form
        for form, there in (("bundle", tags in names), ("sig", f"{tags}.sig" in names))
        if there
    ]
    if len(forms) != 1:
        return Finding(name, False, f"signature forms there: {forms or 'none'}, expected one")
    argv: list[str | Path] = [place.bin / "cosign", "verify", "--allow-insecure-registry"]
    if name.startswith(f"{KEYLESS_PREFIX}/"):
        argv += ["--offline", "--trusted-root", place.trusted_root]
        argv += ["--certificate-identity", IDENTITY, "--certificate-oidc-issuer", ISSUER]
    else:
        argv += ["--key", place.public_key, "--insecure-ignore-tlog"]
    argv.append(f"--new-bundle-format={'true' if forms == ['bundle'] else 'false'}")
    try:
        run([*argv, f"{address}/{repository}@{digest}"], env=cosign_env())
    except LabError as problem:
        return Finding(name, False, str(problem).splitlines()[-1].strip())
    return Finding(name, True, forms[0])


def report(findings: list[Finding]) -> str:
    """Return a short table: what is wrong line by line, what is sound counted by repository."""
    lines = [f"WRONG  {item.subject}: {item.seen}" for item in findings if not item.sound]
    signed = [item for item in findings if item.sound and item.subject != "blobs"]
    counts = Counter((split_name(item.subject)[0], item.seen) for item in signed)
    width = max((len(repository) for repository, _ in counts), default=10)
    forms = {"sig": "older .sig form", "bundle": "bundle referrer"}
    for (repository, form), number in sorted(counts.items()):
        lines.append(f"signed {repository:<{width}}  {number} × {forms[form]}")
    since = ".".join(map(str, BUNDLES_SINCE))
    lines.append(f"{len(signed)} images signed; bundles from v{since} on, the older form before")
    lines += [item.seen for item in findings if item.sound and item.subject == "blobs"]
    return "\n".join(lines)
