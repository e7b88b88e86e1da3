"""Locks through the command: made from the lab, held to by builds, while upstream moves on."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from local_imager.oci.layout import Layout
from local_imager.oci.model import Digest
from local_imager.store.store import Store
from tests.integration.test_sources import Upstream
from tests.integration.upstreams import faulty_copy, settings_file
from tests.labfolder import MIDDLE, NEWEST, OLDEST, PREFIX, Lab
from tests.program import SCHEMATICS, Program
from tests.realregistry import push_layout, running_registry
from tests.unit.sources.forge import REGISTRY

pytestmark = pytest.mark.lab

RECORD = "application/vnd.local-imager.build-record.v1+json"
IMAGER = f"{PREFIX}/siderolabs/imager"
TAUGHT = ("siderolabs/hello-world-service", "siderolabs/qemu-guest-agent")


def move_the_tag(layout: Layout) -> None:
    """Let v1.12.1 of the imager be another image, signed as well as the first one."""
    other = layout.resolve(f"{IMAGER}:{NEWEST}")
    assert other is not None
    layout.set_ref(f"{IMAGER}:{MIDDLE}", other)


def take_away(layout: Layout) -> None:
    """Let the first v1.12.1 be gone for good, as after a collection in a registry."""
    first = layout.resolve(f"{IMAGER}:{MIDDLE}")
    assert first is not None
    move_the_tag(layout)
    layout.blob_path(first.digest).unlink()


def digest_of(lab: Lab, tag: str) -> str:
    found = Layout.open(lab.upstream).resolve(f"{IMAGER}:{tag}")
    assert found is not None
    return str(found.digest)


class Project:
    """A checkout with schematics and a lock, beside an upstream."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.checkout = folder / "checkout"
        (self.checkout / "schematics").mkdir(parents=True)
        for name in ("demo", "vanilla"):
            text = (SCHEMATICS / f"{name}.yaml").read_text()
            (self.checkout / "schematics" / f"{name}.yaml").write_text(text)
        self.demo = self.checkout / "schematics" / "demo.yaml"
        self.vanilla = self.checkout / "schematics" / "vanilla.yaml"
        self.file = self.checkout / "local-imager.lock"

    def program(self, store: str = "store", upstream: Path | None = None) -> Program:
        """The command over a store of its own and, where given, another upstream."""
        config = self.lab.config
        if upstream is not None:
            place = self.folder / f"of-{upstream.parent.name}"
            place.mkdir(exist_ok=True)
            config = settings_file(place, upstream, self.lab.root / "lab.pub", PREFIX)
        return Program(config, self.folder / store, self.folder / f"{store}-out")

    def moved(self) -> Program:
        """The command over an upstream whose tag moved, and an empty store."""
        (self.folder / "moved").mkdir()
        return self.program(
            "store-moved", faulty_copy(self.lab, self.folder / "moved", move_the_tag)
        )

    def lock(self, *arguments: str | Path) -> Path:
        """Write the lock of both schematics for v1.12.1."""
        given = arguments or ("--version", MIDDLE, "--arch", "amd64")
        done = self.program()("lock", self.demo, self.vanilla, *given, "-o", self.file)
        done.expect(0, "2 schematics", "signed by sha256:")
        return self.file


@pytest.fixture
def project(lab: Lab, folder: Path) -> Project:
    return Project(lab, folder)


def test_a_lock_is_the_same_from_any_store_and_names_nothing_of_this_machine(
    project: Project, lab: Lab
) -> None:
    text = project.lock("--version", MIDDLE, "--version", OLDEST, "--arch", "arm64").read_text()
    project.file.unlink()
    project.program("another")(
        *("lock", project.vanilla, project.demo, "--arch", "arm64", "-o", project.file),
        *("--version", OLDEST, "--version", MIDDLE),
    ).expect(0)
    assert project.file.read_text() == text
    assert str(project.folder) not in text
    assert str(lab.root) not in text
    assert 'file = "schematics/demo.yaml"' in text
    assert "local-imager.demo=works" not in text
    for name in TAUGHT:
        assert text.count(f'name = "{name}"') == 2
    assert digest_of(lab, MIDDLE) in text
    assert text.count(f"# renovate: datasource=docker depName={IMAGER}\n") == 2


def test_a_lock_that_is_there_is_kept_and_updates_say_what_changed(
    project: Project, lab: Lab
) -> None:
    before = project.lock().read_bytes()
    moved = project.moved()
    moved("lock", "-o", project.file).expect(0, "nothing changed")
    assert project.file.read_bytes() == before

    first, second = digest_of(lab, MIDDLE), digest_of(lab, NEWEST)
    change = f"base siderolabs/imager:{MIDDLE}, digest: {first} → {second}"
    moved("lock", "--check", "-o", project.file).expect(4, change, "out of date")
    assert project.file.read_bytes() == before
    checked = moved("lock", "--check", "-o", project.file, "--json").expect(4).json
    assert not checked["current"]
    assert "digest" in {entry["kind"] for entry in checked["changes"]}

    kept = project.file.with_name("old.lock")
    kept.write_bytes(before)
    moved("lock", "--update", "-o", project.file).expect(0, change)
    moved("lock", "--check", "-o", project.file).expect(0, "up to date")
    assert second in project.file.read_text()
    moved("lock", "diff", kept, project.file).expect(4, change)
    listed = moved("lock", "diff", kept, project.file, "--json").expect(4).json
    assert {"old": first, "new": second}.items() <= listed[0].items()
    moved("lock", "diff", kept, kept).expect(0, "say the same")
    moved("lock", "--check", "--update", "-o", project.file).expect(2)
    moved("lock", "--check", "-o", project.folder / "none.lock").expect(2, "cannot read the lock")


def test_what_the_lock_does_not_hold_is_refused_with_a_list(project: Project) -> None:
    project.lock()
    program = project.program()
    locked = f"--locked={project.file}"
    other = SCHEMATICS / "kernel-args.yaml"
    asked = ("build", locked, other, "metal-arm64.iso", "--version", NEWEST, "--builder", "same")
    refused = program(*asked, "--json").expect(2).json["error"]
    assert refused["code"] == "lock-drift"
    assert len(refused["drift"]) == 3
    program(*asked).expect(
        2, "schematics/demo.yaml as", f"{NEWEST} is not in the lock, which has {MIDDLE}", "arm64"
    )
    elsewhere = {"LOCAL_IMAGER_UPSTREAM_REGISTRY": f"{PREFIX}/realistic"}
    other_registry = Program(program.config, program.store, program.out, env=elsewhere)
    known = ("plan", locked, project.demo, "metal-amd64.iso", "--version", MIDDLE)
    other_registry(*known).expect(2, "the registry is", f"in the lock {PREFIX}")
    project.demo.write_text(project.demo.read_text().replace("demo-rack", "rack-2"))
    program(*known).expect(2, "the schematic", "is not in the lock", "was its file changed?")
    program("lock", "--check", "-o", project.file).expect(4, "schematic schematics/demo.yaml:")


def test_the_option_alone_means_the_file_here_and_swallows_no_argument(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.lock()
    program = project.program()
    monkeypatch.chdir(project.checkout)
    asked = ("schematics/demo.yaml", "metal-amd64.iso", "--version", MIDDLE, "--json")
    planned = program("plan", "--locked", *asked).expect(0).json
    (base,) = [r for r in planned["assets"][0]["requirements"] if r["role"] == "base"]
    assert base["digest"] == digest_of(project.lab, MIDDLE)
    dry = program("build", "--dry-run", "--locked", *asked).expect(0).json
    assert dry["assets"][0]["requirements"] == planned["assets"][0]["requirements"]
    monkeypatch.chdir(project.folder)
    program("plan", "--locked", project.demo, *asked[1:]).expect(
        2, "cannot read the lock local-imager.lock"
    )


def test_a_changed_signer_is_refused_before_anything_runs(project: Project) -> None:
    text = project.lock().read_text()
    project.file.write_text(re.sub(r'signer = "sha256:', 'signer = "sha256:0', text))
    asked = (f"--locked={project.file}", project.vanilla, "kernel-amd64", "--version", MIDDLE)
    program = Program(
        project.lab.config, project.folder / "store", project.folder, {"DOCKER_HOST": "unix:///no"}
    )
    program("build", *asked).expect(3, "is signed by sha256:", "in the lock by sha256:0")
    assert program("build", *asked, "--json").json["error"]["code"] == "lock-signer"


def test_a_lock_adds_no_trust(project: Project) -> None:
    project.lock()
    stranger = project.folder / "stranger.toml"
    stranger.write_text(f'[upstream]\nregistry = "{PREFIX}"\nsource = "{project.lab.upstream}"\n')
    program = Program(stranger, project.folder / "strange", project.folder)
    asked = (f"--locked={project.file}", project.demo, "kernel-amd64", "--version", MIDDLE)
    program("build", *asked).expect(3, "no trust policy covers")


def test_a_digest_that_is_gone_is_refused_with_a_way_out(project: Project) -> None:
    project.lock()
    (project.folder / "gone").mkdir()
    upstream = faulty_copy(project.lab, project.folder / "gone", take_away)
    program = project.program("store-gone", upstream)
    asked = (f"--locked={project.file}", project.vanilla, "kernel-amd64", "--version", MIDDLE)
    program("build", *asked).expect(2, "cannot be had", digest_of(project.lab, MIDDLE), "--from")


def test_a_bot_changes_the_version_line_and_an_update_follows(project: Project) -> None:
    text = project.lock().read_text()
    line = re.compile(rf'(# renovate: \S+ depName=\S+\nversion = "){re.escape(MIDDLE)}"')
    bumped, count = line.subn(rf'\g<1>{NEWEST}"', text)
    assert count == 1
    project.file.write_text(bumped)
    program = project.program()
    asked = (f"--locked={project.file}", project.demo, "metal-amd64.iso", "--version", NEWEST)
    program("plan", *asked).expect(2, "only its version was changed", "lock --update")
    program("lock", "--check", "-o", project.file).expect(4)
    program("lock", "--update", "-o", project.file).expect(0, f"tag: {MIDDLE} → {NEWEST}")
    program("plan", *asked).expect(0)


def test_a_schematic_from_standard_input_has_to_come_again(project: Project) -> None:
    program = project.program()
    asked = ("lock", "-", "--version", MIDDLE, "--arch", "amd64", "-o", project.file)
    program(*asked, stdin="customization: {}\n").expect(0, "1 schematic,")
    program("lock", "--update", "-o", project.file).expect(2, "standard input")
    program("lock", "-o", project.folder / "new.lock").expect(2, "which schematics")
    program("lock", project.demo, "-o", project.folder / "new.lock").expect(2, "--version V")


def test_a_keyless_lock_names_the_identity_and_the_trusted_root(project: Project, lab: Lab) -> None:
    program = Program(lab.root / "lab-keyless.toml", project.folder / "keyless", project.folder)
    asked = ("lock", project.demo, "--version", NEWEST, "--arch", "amd64", "-o", project.file)
    program(*asked).expect(0, "signed by releasemgr-svc@")
    document = tomllib.loads(project.file.read_text())
    root = Digest.of((lab.root / "keyless-trusted-root.json").read_bytes())
    assert document["trust"]["trusted_roots"] == [str(root)]
    signers = {image["signer"] for image in document["version"][0]["image"]}
    assert all("(https://accounts.google.com)" in signer for signer in signers)
    held = ("plan", f"--locked={project.file}", project.demo, "metal-amd64.iso")
    program(*held, "--version", NEWEST).expect(0)


def test_digests_are_fetched_from_a_registry_whose_tags_moved(folder: Path) -> None:
    upstream = Upstream(folder)
    upstream.add(NEWEST, by=upstream.signing)
    file = folder / "local-imager.lock"
    vanilla = SCHEMATICS / "vanilla.yaml"
    with running_registry(folder / "registry") as address:
        upstream.address = address
        push_layout(Layout.open(upstream.forge.layout.path), address)
        program = upstream.trusted("first")
        program("lock", vanilla, "--version", NEWEST, "--arch", "amd64", "-o", file).expect(0)
        first = upstream.forge.layout.resolve(f"{REGISTRY}/siderolabs/imager:{NEWEST}")
        assert first is not None
        upstream.add(NEWEST, by=upstream.signing)
        push_layout(Layout.open(upstream.forge.layout.path), address)
        later = upstream.trusted("later")
        later("lock", "--check", "-o", file).expect(4, f"base siderolabs/imager:{NEWEST}, digest")
        # All images come and are held against the lock before the engine, which is not there.
        later = Program(later.config, later.store, later.out, {"DOCKER_HOST": "unix:///no"})
        later("build", f"--locked={file}", vanilla, "kernel-amd64", "--version", NEWEST).expect(5)
    names = {entry.ref_name for entry in Store.open(later.store).images()}
    assert f"{REGISTRY}/siderolabs/imager:{NEWEST}@{first.digest}" in names


@pytest.mark.engine
def test_a_locked_build_uses_the_same_inputs_after_the_tag_moved(
    project: Project, engine: object
) -> None:
    """Build before the move and after it, from an empty store: same build keys, same kernel.

    The imager writes the time into an initramfs, so of the UKI the build key is what can be equal.
    """
    project.lock()
    locked = f"--locked={project.file}"
    assets = ("kernel-amd64", "metal-amd64-uki.efi")
    before = project.program().build(project.demo, *assets, version=MIDDLE)
    assert [result["lock"] for result in before] == [None, None]

    moved = project.moved()
    after = moved.build(project.demo, *assets, locked, version=MIDDLE)
    assert [result["build_key"] for result in after] == [result["build_key"] for result in before]
    assert after[0]["digest"] == before[0]["digest"]
    digest = str(Digest.of(project.file.read_bytes()))
    store = Store.open(moved.store)
    for result, asset in zip(after, store.assets(), strict=True):
        (document,) = store.read_referrers(asset, RECORD)
        record = json.loads(document)
        assert record["asset"] == result["asset"]
        assert record["lock"]["digest"] == result["lock"] == digest
        assert record["base"]["digest"] == digest_of(project.lab, MIDDLE)
        assert not result["cached"]

    unlocked = moved.build(project.demo, assets[0], "--no-export", version=MIDDLE)[0]
    assert unlocked["build_key"] != before[0]["build_key"]
    again = moved.build(project.demo, *assets, locked, "--offline", version=MIDDLE)
    assert [result["cached"] for result in again] == [True, True]
    moved.fsck()
