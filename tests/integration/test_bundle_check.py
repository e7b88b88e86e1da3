"""What `bundle check` says before travel is what the far side then finds: real images, no network.

The near side's bundles are checked; then they are imported into empty stores in a network
namespace without interfaces, and there the program plans the same builds from its store alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.test_no_network import ISOLATED
from tests.labfolder import NEWEST, OLDEST, Lab, big_folder, run
from tests.program import Outcome, Program

pytestmark = pytest.mark.lab

ASSETS: Final = ("metal-amd64.iso", "metal-amd64.raw.zst", "installer-amd64.tar")
SCHEMATIC: Final = """\
customization:
  systemExtensions:
    officialExtensions: [siderolabs/gvisor, siderolabs/hello-world-service]
overlay: {name: lab_board_amd64, image: siderolabs/sbc-lab}
"""


@dataclass(frozen=True)
class Gap:
    """Both sides of one gap; bundles are made in ``folder``."""

    folder: Path
    near: Program
    far: Program

    @property
    def schematic(self) -> Path:
        return self.folder / "site.yaml"

    def create(self, name: str, *options: str | Path) -> list[Path]:
        """Make a bundle; return its files."""
        output = self.folder / name
        done = self.near("bundle", "create", *options, "--json", "-o", output).expect(0)
        return [Path(part["path"]) for part in done.json["parts"]]

    def check(self, *arguments: str | Path) -> Outcome:
        """Check without a network, and without any store."""
        side = replace(self.near, store=self.folder / "no-store", prefix=ISOLATED)
        done = side("bundle", "check", *arguments, "--json")
        assert not side.store.exists()
        return done

    def arrive(self, name: str, *files: Path) -> Program:
        """Import into an empty store on the far side."""
        side = replace(self.far, store=self.folder / name)
        side("bundle", "import", *files, "--report", self.folder / f"{name}-report").expect(0)
        return side

    def planned(self, side: Program, *assets: str, locked: bool = False) -> list[dict[str, Any]]:
        """Plan on the far side from its store alone."""
        lock = [f"--locked={self.folder / 'local-imager.lock'}"] if locked else []
        options = ("--version", OLDEST, "--offline", "--json", *lock)
        done = side("plan", self.schematic, *assets, *options).expect(0)
        found: list[dict[str, Any]] = done.json["assets"]
        return found


@pytest.fixture(scope="module")
def gap(lab: Lab) -> Iterator[Gap]:
    with big_folder(lab, "gap") as folder:
        (folder / "site.yaml").write_text(SCHEMATIC)
        run("openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", folder / "sign.key")
        public = folder / "sign.pub"
        run("openssl", "pkey", "-in", folder / "sign.key", "-pubout", "-out", public)
        config = folder / "far.toml"
        config.write_text(
            f'[upstream]\nregistry = "lab.local-imager.test"\n'
            f'[[trust]]\npattern = "lab.local-imager.test/**"\nkey = "{lab.root / "lab.pub"}"\n'
            f'[[trust]]\npattern = "bundles"\nkey = "{public}"\n'
        )
        near = Program(lab.config, folder / "near", folder / "near-out")
        far = Program(config, folder / "far", folder / "far-out", prefix=ISOLATED)
        yield Gap(folder, near, far)


@pytest.fixture(scope="module")
def site(gap: Gap) -> list[Path]:
    """A signed set of compressed parts that is made for the builds in question."""
    made_for = ("--version", OLDEST, "--schematic", gap.schematic, "--arch", "amd64")
    form = ("--split", "60MB", "--zstd", "--sign-key", gap.folder / "sign.key")
    return gap.create("site.tar", *made_for, *form)


def test_complete_is_complete_on_the_far_side(gap: Gap, site: list[Path]) -> None:
    assert len(site) > 2
    found = gap.check("--key", gap.folder / "sign.pub", *reversed(site)).expect(0).json
    assert found["complete"] and found["parts"] == len(site)
    assert found["signature"]["policy"] == "bundles (flags)"
    assert found["lock"].startswith("local-imager.lock")
    assert [(one["asset"], one["builder"]) for one in found["assets"]] == [
        (asset, NEWEST) for asset in ASSETS
    ]
    side = gap.arrive("complete", *site)
    side("bundle", "import", site[0], "--documents", gap.folder).expect(0)
    for locked in (False, True):
        for plan, proof in zip(
            gap.planned(side, *ASSETS, locked=locked), found["assets"], strict=True
        ):
            assert plan["resolved"]
            assert all(image["in_store"] for image in plan["requirements"]), plan["asset"]
            needed = {(image["role"], image["digest"]) for image in plan["requirements"]}
            proven = {(image["role"], image["digest"]) for image in proof["images"]}
            assert needed <= proven


def test_a_part_that_stays_behind(gap: Gap, site: list[Path]) -> None:
    found = gap.check(*site[:-1]).expect(1).json
    assert [part["part"] for part in found["missing_parts"]] == [len(site)]
    assert not found["complete"]
    remedies = {one["remedy"] for proof in found["assets"] for one in proof["missing"]}
    assert remedies == {f"give part {len(site)} too"}


def test_missing_is_missing_on_the_far_side(gap: Gap, site: list[Path]) -> None:
    """A bundle for one extension, and a build that wants two and an overlay."""
    del site  # its images are in the near side's store
    made_for = ("--version", OLDEST, "--extensions", "siderolabs/gvisor", "--arch", "amd64")
    files = gap.create("one.tar", *made_for, "--sign-key", gap.folder / "sign.key")
    asked = ("--version", OLDEST, "--schematic", gap.schematic, "--asset", ASSETS[0])
    found = gap.check(*asked, *files).expect(1).json
    (proof,) = found["assets"]
    missing = {(one["role"], one["name"].partition("@")[0]) for one in proof["missing"]}
    repository = "lab.local-imager.test/siderolabs"
    assert missing == {
        ("extension", f"{repository}/hello-world-service:{OLDEST}"),
        ("overlay", f"{repository}/sbc-lab:v0.9.0"),
    }
    assert "siderolabs/gvisor" in str(proof["images"])
    side = gap.arrive("incomplete", *files)
    (plan,) = gap.planned(side, ASSETS[0])
    assert not plan["resolved"]
    assert "hello-world-service" not in side("sources", "list", "--json").expect(0).stdout


def test_an_arm_far_side_needs_an_arm_imager(gap: Gap, site: list[Path]) -> None:
    found = gap.check("--host-arch", "arm64", *site).expect(1).json
    roles = {one["role"] for proof in found["assets"] for one in proof["missing"]}
    assert {"builder", "base"} <= roles
    remedies = {one["remedy"] for proof in found["assets"] for one in proof["missing"]}
    assert remedies == {"make the bundle with --host-arch arm64"}


def test_the_same_is_said_to_a_person(gap: Gap, site: list[Path]) -> None:
    side = replace(gap.far, store=gap.folder / "no-store")
    done = side("bundle", "check", *site).expect(0, "complete metal-amd64.iso", "bundles (user")
    assert "MISSING" not in done.stdout
    broken = gap.folder / "broken.part1of9.tar.zst"
    data = bytearray(site[0].read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(bytes(data))
    signature = gap.folder / "site.tar.sigstore.json"
    refused = side("bundle", "check", "--signature", signature, broken, *site[1:])
    refused.expect(3, "faulty", "fault")
