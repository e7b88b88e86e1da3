"""Images signed keyless by the lab's private Sigstore, end to end and without any network.

They pass under a policy of the official one's shape and are refused under the official one. The
program runs in a network namespace without interfaces, where opening any socket is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify.policy import Identity
from sigstore.verify.verifier import Verifier

from lab.keyless import IDENTITY, ISSUER
from lab.place import KEYLESS_PREFIX
from lab.registry import fill_storage, running_registry
from local_imager.oci.layout import Layout
from local_imager.oci.model import Descriptor, Digest
from local_imager.pipeline.factory import ARTIFACT_BUILD_RECORD
from local_imager.sources.trust import OFFICIAL_IDENTITY, OFFICIAL_ISSUER
from tests.integration.looking import read_pe
from tests.integration.upstreams import flip_a_bit, rewrite
from tests.labfolder import NEWEST, OLDEST, Lab, linked_copy, run
from tests.program import SCHEMATICS, Outcome, Program

pytestmark = pytest.mark.lab

SIGNER = f"{IDENTITY} ({ISSUER})"
OFFICIAL_NAME = "ghcr.io/siderolabs"
LAB_NAME = f"{KEYLESS_PREFIX}/siderolabs"
VERSIONS = [OLDEST, NEWEST]
# form: what the log shows, per version; the older form has no place for an inclusion proof.
PROOFS = {
    OLDEST: ["signed entry timestamp"],
    NEWEST: ["signed entry timestamp", "inclusion proof with checkpoint"],
}

GUARD = """\
import os, sys

def refuse(event, arguments):
    if not event.startswith("socket."):
        return
    if os.environ.get("ALLOW_UNIX_SOCKETS"):
        # urllib3 below the engine's client binds ::1 when it is imported, to see if IPv6 exists.
        if event in ("socket.__new__", "socket.bind"):
            return
        if event == "socket.connect" and isinstance(arguments[1], str):
            return
    with open(os.environ["SOCKETS_SEEN"], "a") as seen:
        seen.write(f"{event} {arguments}\\n")
    raise RuntimeError(f"a socket was asked for: {event} {arguments}")

sys.addaudithook(refuse)
"""


class Isolated:
    """Runs the program where there is no network and where sockets raise."""

    def __init__(self, folder: Path, config: Path) -> None:
        guard = folder / "guard"
        guard.mkdir(exist_ok=True)
        (guard / "sitecustomize.py").write_text(GUARD)
        self.seen = folder / "sockets-seen"
        self.program = Program(
            config,
            folder / "store",
            folder / "out",
            env={"PYTHONPATH": str(guard), "SOCKETS_SEEN": str(self.seen)},
            prefix=("unshare", "--net"),
        )

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run the program; a socket fails the test, also one whose error was swallowed."""
        outcome = self.program(*arguments)
        assert not self.seen.exists(), self.seen.read_text()
        return outcome

    def refused(self, version: str, code: str) -> str:
        """Fetching is refused for this reason, nothing is stored; return the message."""
        done = self("sources", "fetch", "--version", version, "--json").expect(3)
        error = done.json["error"]
        assert error["code"] == code, error
        listed = self("sources", "list", "--json").expect(0).json
        assert [image for image in listed if "/imager:" in image["image"]] == []
        return str(error["message"])


@pytest.fixture(scope="module")
def config(lab: Lab) -> Path:
    """The settings of the keyless set."""
    path = lab.root / "lab-keyless.toml"
    if not path.exists():
        pytest.fail(f"the lab has no keyless images ({lab.root}): run `make lab`", pytrace=False)
    return path


@pytest.fixture
def isolated(config: Path, folder: Path) -> Isolated:
    """The program under the lab's keyless policy, cut off."""
    return Isolated(folder, config)


def settings(folder: Path, source: Path, *trust: str, registry: str = "ghcr.io") -> Path:
    """Write settings with one [[trust]] entry, or none: then the shipped policy decides."""
    path = folder / "settings.toml"
    text = f'[upstream]\nregistry = "{registry}"\nsource = "{source}"\n'
    path.write_text("\n".join([text, "[[trust]]" if trust else "", *trust, ""]))
    return path


def renamed(lab: Lab, folder: Path) -> Path:
    """Return a copy of the layout in which the keyless set has the official images' names."""
    copy = linked_copy(lab.upstream, folder / "renamed")
    rewrite(
        copy / "index.json", lambda data: data.replace(LAB_NAME.encode(), OFFICIAL_NAME.encode())
    )
    return copy


def imager(layout: Layout, version: str) -> Descriptor:
    """Return the index of an imager of the keyless set."""
    found = layout.resolve(f"{LAB_NAME}/imager:{version}")
    assert found is not None
    return found


def signature_ref(name: str, image: Descriptor, version: str) -> str:
    """Return the name under which the signature of an image is found."""
    suffix = ".sig" if version == OLDEST else ""
    return f"{LAB_NAME}/{name}:sha256-{image.digest.hex}{suffix}"


# -- the harness itself -----------------------------------------------------------------------


def test_the_isolation_isolates(isolated: Isolated, lab: Lab) -> None:
    env = {**os.environ, **isolated.program.env}
    listed = run("unshare", "--net", "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in listed] in (["lo"], [])
    for statement in ("socket.socket()", "socket.getaddrinfo('localhost', 1)"):
        argv = [sys.executable, "-c", f"import socket; {statement}"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert "a socket was asked for" in done.stderr
    assert len(isolated.seen.read_text().splitlines()) == 2


# -- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_fetch_plan_and_verify_pass_without_a_network(version: str, isolated: Isolated) -> None:
    schematic = SCHEMATICS / "extensions.yaml"
    fetched = isolated(
        "sources", "fetch", "--version", version, "--schematic", schematic, "--json"
    ).expect(0)
    paths = [item["image"].partition("@")[0] for item in fetched.json]
    names = {path.rpartition(":")[0].rpartition("/")[2] for path in paths}
    assert {"imager", "extensions", "overlays", "gvisor", "hello-world-service"} <= names
    assert {item["signer"] for item in fetched.json} == {SIGNER}
    isolated("plan", schematic, "metal-amd64.iso", "--version", version).expect(0)
    isolated("plan", schematic, "metal-amd64.iso", "--version", version, "--offline").expect(0)
    answers = isolated("sources", "verify", "--json").expect(0).json
    assert all(answer["accepted"] for answer in answers)
    wanted = f"{LAB_NAME}/imager:{version}"
    (answer,) = [one for one in answers if one["image"] == wanted]
    (accepted,) = answer["evidence"]["accepted_by"]
    assert {"certificate chain", "identity", "log entry", "certificate transparency"} <= set(
        accepted["checked"]
    )
    assert accepted["log_entry"]["proofs"] == PROOFS[version]
    assert ("signed timestamp" in accepted["checked"]) == (version == NEWEST)


@pytest.mark.engine
@pytest.mark.parametrize("version", VERSIONS)
def test_a_uki_is_built_without_a_network(
    version: str, isolated: Isolated, engine: docker.DockerClient
) -> None:
    # The engine is asked over its Unix socket, which is a file; all else is still refused.
    env = {**isolated.program.env, "ALLOW_UNIX_SOCKETS": "1"}
    isolated.program = replace(isolated.program, env=env)
    order = ("build", SCHEMATICS / "kernel-args.yaml", "metal-amd64-uki.efi")
    done = isolated(*order, "--version", version, "--out", isolated.program.out, "--json").expect(0)
    (result,) = done.json
    assert read_pe(Path(result["path"]).read_bytes()).arch == "amd64"
    record = build_record(isolated.program.store, Digest.parse(result["manifest_digest"]))
    assert {record[role]["signer"] for role in ("builder", "base")} == {SIGNER}
    assert record["base"]["reference"] == f"{LAB_NAME}/imager:{version}"
    (accepted,) = record["base"]["evidence"]["accepted_by"]
    assert "certificate transparency" in accepted["checked"]


def build_record(store: Path, asset: Digest) -> Any:
    """Return the record that lies beside an asset in the store."""
    layout = Layout.open(store)
    (listed,) = layout.referrers(asset, ARTIFACT_BUILD_RECORD)
    manifest = json.loads(layout.blob_path(listed.digest).read_bytes())
    (layer,) = manifest["layers"]
    return json.loads(layout.blob_path(Digest.parse(layer["digest"])).read_bytes())


# -- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_shipped_policy_refuses(version: str, lab: Lab, config: Path, folder: Path) -> None:
    isolated = Isolated(folder, settings(folder, renamed(lab, folder)))
    message = isolated.refused(version, "certificate-invalid")
    assert f"{OFFICIAL_NAME}/" in message
    assert "(default)" in message


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_identity_is_wrong_for_the_official_policy(
    version: str, lab: Lab, config: Path, folder: Path
) -> None:
    """Even who trusts the lab's Sigstore is told that another identity signed."""
    trust = (
        f'pattern = "{OFFICIAL_NAME}/**"',
        f'issuer = "{OFFICIAL_ISSUER}"',
        f'trusted_root = "{lab.root / "keyless-trusted-root.json"}"',
    )
    copy = renamed(lab, folder)
    isolated = Isolated(
        folder, settings(folder, copy, *trust, f"identity_regexp = '{OFFICIAL_IDENTITY}'")
    )
    assert IDENTITY in isolated.refused(version, "identity-mismatch")
    settings(folder, copy, *trust, f'identity = "{IDENTITY}"')
    isolated("sources", "fetch", "--version", version).expect(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_another_sigstore_of_the_same_make_is_refused(
    version: str, lab: Lab, config: Path, folder: Path
) -> None:
    """Names and shape are equal to the last letter; the keys are not."""
    request = folder / "request.json"
    request.write_text(json.dumps({"issuer": ISSUER, "identity": IDENTITY, "images": []}))
    run(lab.root / "steps/keyless-signer/keyless", request, folder)
    text = config.read_text().replace('source = "upstream"', f'source = "{lab.upstream}"')
    other = folder / "other.toml"
    other.write_text(text.replace("keyless-trusted-root.json", "trusted_root.json"))
    Isolated(folder, other).refused(version, "certificate-invalid")


def tampered_layer(layout: Layout, version: str) -> None:
    """Change a bit of the imager's program."""
    index = json.loads(layout.blob_path(imager(layout, version).digest).read_bytes())
    child = layout.blob_path(Digest.parse(index["manifests"][0]["digest"])).read_bytes()
    layer = Digest.parse(json.loads(child)["layers"][-1]["digest"])
    rewrite(layout.blob_path(layer), flip_a_bit)


def tampered_signature(layout: Layout, version: str) -> None:
    """Change a bit of the bundle, or of the older form's payload."""
    for blob in signature_blobs(layout, version):
        rewrite(layout.blob_path(blob), flip_a_bit)


def signature_of_another(layout: Layout, version: str) -> None:
    """Give the imager the valid signature of the catalogue."""
    other = layout.resolve(f"{LAB_NAME}/extensions:{version}")
    assert other is not None
    signature = layout.resolve(signature_ref("extensions", other, version))
    assert signature is not None
    layout.set_ref(signature_ref("imager", imager(layout, version), version), signature)


def no_signature(layout: Layout, version: str) -> None:
    """Take the imager's signature away."""
    layout.remove_ref(signature_ref("imager", imager(layout, version), version))


def signature_blobs(layout: Layout, version: str) -> list[Digest]:
    """Return the digests of the layers that hold an imager's signature."""
    found = layout.resolve(signature_ref("imager", imager(layout, version), version))
    assert found is not None
    document = json.loads(layout.blob_path(found.digest).read_bytes())
    manifests = [
        json.loads(layout.blob_path(Digest.parse(one["digest"])).read_bytes())
        for one in document.get("manifests", [])
    ] or [document]
    return [Digest.parse(layer["digest"]) for one in manifests for layer in one["layers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (tampered_layer, "integrity"),
        (tampered_signature, "digest-mismatch"),
        (signature_of_another, "subject-mismatch"),
        (no_signature, "no-signature"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_image_with_a_fault_is_refused(
    spoil: Any, code: str, version: str, lab: Lab, config: Path, folder: Path
) -> None:
    copy = linked_copy(lab.upstream, folder / "upstream")
    spoil(Layout.open(copy), version)
    text = config.read_text().replace('"keyless-', f'"{lab.root}/keyless-')
    spoiled = folder / "spoiled.toml"
    spoiled.write_text(text)
    Isolated(folder, spoiled).refused(version, code)


# -- witnesses ----------------------------------------------------------------------------------


def cosign_says(lab: Lab, reference: str, version: str, identity: str, root: Path) -> bool:
    """Ask the real cosign, with everything on: chain, SCT, log, identity."""
    argv: list[str | Path] = [lab.root / "bin/cosign", "verify", "--offline"]
    argv += ["--allow-insecure-registry"]
    argv += ["--trusted-root", root, "--certificate-identity", identity]
    argv += ["--certificate-oidc-issuer", ISSUER]
    argv += [f"--new-bundle-format={'false' if version == OLDEST else 'true'}", reference]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_cosign_accepts_and_refuses_the_same(
    version: str, lab: Lab, config: Path, folder: Path
) -> None:
    from lab.oci import Layout as LabLayout

    root = lab.root / "keyless-trusted-root.json"
    public = Path(__file__).parents[1] / "golden/sigfix/trust/public-good.trusted_root.json"
    digest = imager(Layout.open(lab.upstream), version).digest
    fill_storage(LabLayout.open(lab.upstream), folder / "storage")
    with running_registry(lab.root / "steps/registry/unpacked", folder) as address:
        reference = f"{address}/keyless/siderolabs/imager@{digest}"
        official = "releasemgr-svc@talos-production.iam.gserviceaccount.com"
        assert cosign_says(lab, reference, version, IDENTITY, root)
        assert not cosign_says(lab, reference, version, official, root)
        assert not cosign_says(lab, reference, version, IDENTITY, public)


def test_sigstore_python_accepts_and_refuses_the_same_bundle(lab: Lab, config: Path) -> None:
    layout = Layout.open(lab.upstream)
    (blob,) = signature_blobs(layout, NEWEST)
    bundle = Bundle.from_json(layout.blob_path(blob).read_bytes())
    root = TrustedRoot.from_file(str(lab.root / "keyless-trusted-root.json"))
    verifier = Verifier(trusted_root=root)
    kind, payload = verifier.verify_dsse(bundle, Identity(identity=IDENTITY, issuer=ISSUER))
    assert kind == "application/vnd.in-toto+json"
    (subject,) = json.loads(payload)["subject"]
    assert subject["digest"]["sha256"] == imager(layout, NEWEST).digest.hex
    with pytest.raises(SigstoreError):
        verifier.verify_dsse(bundle, Identity(identity="somebody@else.test", issuer=ISSUER))
