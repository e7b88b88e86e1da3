"""Source images of the lab and of a real registry, through the command, behind the gate."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_imager.oci.layout import Layout
from tests.labfolder import MIDDLE, NEWEST, OLDEST, PREFIX, Lab, linked_copy
from tests.program import Program
from tests.realregistry import push_layout, running_registry
from tests.unit.sources.forge import REGISTRY, Forge, Signing

NAME = "siderolabs/imager"
pytestmark = pytest.mark.lab


@pytest.mark.parametrize("version", [OLDEST, MIDDLE])
def test_everything_of_a_version_is_fetched_and_verifies_offline(
    version: str, fresh: Program, lab: Lab
) -> None:
    fetched = fresh("sources", "fetch", "--version", version, "--json").expect(0).json
    assert {item["role"] for item in fetched} == {
        "base",
        "base-installer",
        "builder",
        "extensions-catalogue",
        "overlays-catalogue",
    }
    assert all(item["signer"].startswith("sha256:") for item in fetched)
    assert not any(item["unverified"] for item in fetched)
    builder = next(item for item in fetched if item["role"] == "builder")
    assert builder["image"].endswith(NEWEST)
    # These settings name no upstream: a policy is all that is left of the lab.
    offline = Program(lab.root / "policy.toml", fresh.store, fresh.out)
    answers = offline("sources", "verify", "--json").expect(0).json
    assert len(answers) >= 5
    assert all(answer["accepted"] for answer in answers)
    fresh.fsck()


def test_versions_and_catalogues_of_the_lab(fresh: Program) -> None:
    assert fresh("versions", "--json").expect(0).json == [OLDEST, MIDDLE, NEWEST]
    extensions = fresh("extensions", OLDEST, "--json").expect(0).json
    names = [entry["name"] for entry in extensions]
    assert "siderolabs/hello-world-service" in names
    assert "siderolabs/i915-ucode" in names
    assert all(entry["ref"].startswith(f"{PREFIX}/{entry['name']}:") for entry in extensions)
    overlays = fresh("overlays", NEWEST, "--json").expect(0).json
    assert {entry["name"] for entry in overlays} >= {"lab_board", "lab_board_amd64"}
    fresh("extensions", "v1.9").expect(2, "v1.9.0")
    fresh("extensions", "v1.10.0").expect(2, "no Talos v1.10.0", "nearest", OLDEST)


def test_lab_images_are_refused_under_official_names(lab: Lab, fresh: Program) -> None:
    """The lab's key never counts for ghcr.io, and what cannot be checked is not used."""
    config = fresh.store.parent / "official.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[upstream]\nsource = "{lab.upstream}"\n')
    renamed = linked_copy(lab.upstream, fresh.store.parent / "renamed")
    index = renamed / "index.json"
    text = index.read_text().replace(f"{PREFIX}/siderolabs", "ghcr.io/siderolabs")
    index.write_text(text)
    program = Program(config, fresh.store, fresh.out)
    done = program("extensions", OLDEST, "--from", renamed)
    done.expect(3, "ghcr.io/siderolabs/extensions:v1.9.0", "keyless", "refused")


class Upstream:
    """A real registry with signed images of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.signing = folder, Signing()
        self.forge = Forge(folder / "forge")
        self.address = ""

    def program(self, name: str, policy: str) -> Program:
        """The command with this registry as upstream and a policy of its own."""
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[upstream]\nregistry = "{REGISTRY}"\nsource = "http://{self.address}"\n{policy}'
        )
        return Program(config, self.folder / name / "store", self.folder / "out")

    def trusted(self, name: str) -> Program:
        """The command with a policy that wants our key."""
        key = self.folder / "key.pub"
        key.write_text(self.signing.pem)
        return self.program(name, f'[[trust]]\npattern = "{REGISTRY}/**"\nkey = "{key}"\n')

    def add(self, tag: str, *, by: Signing | None, form: str = "bundle", size: int = 1000) -> None:
        """Add an imager and the catalogues of a version, signed by somebody or nobody."""
        boot = {f"usr/install/amd64/{n}": os.urandom(size) for n in ("vmlinuz", "initramfs.xz")}
        catalogue = {"image-digests": b"", "descriptions.yaml": b""}
        for name, files in (
            (NAME, boot),
            ("siderolabs/extensions", catalogue),
            ("siderolabs/overlays", {"overlays.yaml": b"overlays: []\n"}),
            ("siderolabs/installer", {"x": b"1"}),
            ("siderolabs/installer-base", {"x": b"1"}),
        ):
            top = self.forge.image(name, tag, files, ("amd64", "arm64"))
            if by is not None and form == "bundle":
                self.forge.sign_bundle(name, top, by.bundle(top.digest))
            elif by is not None:
                self.forge.sign_legacy(name, top, by)


@pytest.fixture(scope="module")
def upstream(session_folder: Path) -> Iterator[Upstream]:
    folder = session_folder / "sources"
    folder.mkdir()
    made = Upstream(folder)
    made.add("v1.9.0", by=made.signing, form="legacy")
    made.add("v1.13.0", by=made.signing, size=8 << 20)
    made.add("v1.12.0", by=None)
    made.add("v1.12.1", by=Signing())
    with running_registry(folder / "registry") as address:
        made.address = address
        push_layout(Layout.open(made.forge.layout.path), address)
        yield made


def test_a_real_registry_serves_both_forms(upstream: Upstream) -> None:
    program = upstream.trusted("one")
    expected = ["v1.9.0", "v1.12.0", "v1.12.1", "v1.13.0"]
    assert program("versions", "--json").expect(0).json == expected
    program("sources", "fetch", "--version", "v1.9.0").expect(0)
    listed = program("sources", "list", "--json").expect(0).json
    assert {item["image"] for item in listed} >= {f"{REGISTRY}/{NAME}:v1.9.0"}
    assert all(item["arches"] for item in listed)
    program("sources", "verify", f"{NAME}:v1.9.0").expect(0, "1 accepted")


def test_refusals_say_what_was_found(upstream: Upstream) -> None:
    program = upstream.trusted("refusals")
    fetch = ("sources", "fetch", "--version")
    program(*fetch, "v1.12.0").expect(3, f"{REGISTRY}/", ":v1.12.0", "no signature at all")
    program(*fetch, "v1.12.1").expect(3, "not made by the policy's key")
    assert program("sources", "list", "--json").expect(0).json == []
    nobody = upstream.program("nobody", "")
    nobody(*fetch, "v1.9.0").expect(3, "no trust policy covers", REGISTRY)


def test_accept_unverified_works_only_from_the_users_own_file(upstream: Upstream) -> None:
    rule = f'[[trust]]\npattern = "{REGISTRY}/**"\naccept_unverified = true\n'
    program = upstream.program("unverified", rule)
    done = program("sources", "fetch", "--version", "v1.12.0", "--json")
    done.expect(0, "WITHOUT VERIFICATION")
    assert all(item["unverified"] for item in done.json)
    program("sources", "verify").expect(0, "UNVERIFIED")


def test_a_fetch_that_is_killed_goes_on_and_leaves_a_clean_store(upstream: Upstream) -> None:
    program = upstream.trusted("killed")
    for wait_s in (0.5, 0.7, 0.9):
        running = program.start("sources", "fetch", "--version", "v1.13.0")
        time.sleep(wait_s)
        running.signal(signal.SIGKILL)
        running.wait()
        if program.store.exists():
            program.fsck()
    program("sources", "fetch", "--version", "v1.13.0").expect(0)
    program("sources", "verify").expect(0, "0 refused")
    program.fsck()


def test_a_tampered_store_is_noticed_before_use(upstream: Upstream) -> None:
    program = upstream.trusted("tampered")
    program("sources", "fetch", "--version", "v1.9.0").expect(0)
    layout = Layout.open(program.store)
    entry = layout.resolve(f"{REGISTRY}/{NAME}:v1.9.0")
    assert entry is not None
    path = layout.blob_path(entry.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"arm64", b"arm46"))
    answers = program("sources", "verify", "--json").expect(3)
    refused = [a for a in json.loads(answers.stdout) if not a["accepted"]]
    assert [a["code"] for a in refused] == ["integrity"]


def test_a_registry_that_is_gone_is_told_with_a_way_out(upstream: Upstream) -> None:
    program = upstream.trusted("gone")
    config = program.config.read_text().replace(upstream.address, "127.0.0.1:1")
    program.config.write_text(config)
    began_s = time.monotonic()
    program("versions").expect(1, "--from", "lab")
    assert time.monotonic() - began_s < 30
    shutil.rmtree(program.store, ignore_errors=True)
