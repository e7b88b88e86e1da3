"""The pipelines of docs/ci.md and action.yml, run step by step in a clean container.

The container has Debian's Python, make, git and jq; local-imager comes into it as a wheel. Upstream
is the lab, the factory one of our own; both are named in the environment, as the guide says.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from lab.clean import clean_image, runtime_wheels
from lab.place import Place
from local_imager import __version__
from local_imager.oci.model import Digest
from tests.factoryserver import FactoryServer, factory_server
from tests.integration.cleanrunner import CleanRunner, GithubJob, clean_runner, gitlab_job
from tests.integration.upstreams import settings_file
from tests.labfolder import NEWEST, PREFIX, Lab, run
from tests.pipelinedocs import blocks, files, gitlab, workflow
from tests.program import ROOT
from tests.unit.sources.forge import Signing

pytestmark = [pytest.mark.lab, pytest.mark.engine]

EDGE = """\
customization:
  extraKernelArgs: [console=ttyS0]
  systemExtensions:
    officialExtensions: [siderolabs/hello-world-service]
"""
RACK = "customization: {extraKernelArgs: [rack=7]}\n"
CMDLINE, UKI = "cmdline-metal-amd64", "metal-amd64-uki.efi"
BAD = """\
include:
  - schematic: schematics/rack.yaml
    version: v1.13.0
    assets: ["metal-ARCH-secureboot-uki.efi"]
"""


@dataclass
class Site:
    """A repository as the guide describes it, with what its first job left."""

    runner: CleanRunner
    factory: FactoryServer
    action: Path
    summary: dict[str, Any]
    files: Path

    def job(self, **env: str) -> GithubJob:
        """A job of GitHub that knows the lock of its checkout."""
        lock = Digest.of((self.runner.origin / "local-imager.lock").read_bytes())
        known = {"hashFiles('local-imager.lock')": lock.hex}
        return GithubJob(self.runner, self.action, env, known)

    def with_store(self) -> CleanRunner:
        """The runner in a fresh checkout with the store of the first job."""
        checkout = self.runner.fresh_checkout()
        lock = Digest.of((checkout / "local-imager.lock").read_bytes()).hex
        assert self.runner.restore_cache(".ci/store", f"local-imager-{lock}") == "true"
        return self.runner

    def asset(self, schematic: str, name: str) -> Path:
        """What the first job built."""
        (cell,) = [
            cell
            for cell in self.summary["cells"]
            if (Path(cell["schematic"]).stem, cell["asset"]) == (schematic, name)
        ]
        return self.files / Path(cell["path"]).relative_to("out")

    def offer(self, *others: str) -> None:
        """Let the factory have what the first job built; of ``others`` the rack's for both."""
        for cell in self.summary["cells"]:
            name = "rack" if cell["asset"] in others else Path(cell["schematic"]).stem
            path = self.asset(name, cell["asset"])
            self.factory.serve(cell["schematic_id"], NEWEST, {cell["asset"]: path})


@pytest.fixture(scope="module")
def site(lab: Lab, engine: docker.DockerClient, session_folder: Path) -> Iterator[Site]:
    """The repository after `make lock` and the first `make images`, its store in the cache."""
    place, requirements = Place(lab.root), ROOT / "requirements" / "runtime.txt"
    image = clean_image(place)
    wheels = runtime_wheels(place, requirements, image.python)
    folder = session_folder / "pipeline"
    (folder / "wheel").mkdir(parents=True)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder / "wheel", ROOT)
    (wheel,) = (folder / "wheel").iterdir()
    action = folder / "action"
    for name in ("src", "requirements"):
        pattern = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, action / name, ignore=pattern)
    pinned = f"local-imager=={__version__} --hash={Digest.of(wheel.read_bytes())}\n"
    seen = [lab.upstream, lab.config, lab.root / "lab.pub", wheels]
    with (
        factory_server() as factory,
        clean_runner(engine, image, folder, seen) as runner,
    ):
        runner.env |= {
            "PIP_NO_INDEX": "1",
            "PIP_COMPILE": "0",  # Python does so for what is used
            "PIP_FIND_LINKS": f"{wheels} {wheel.parent}",
            "LOCAL_IMAGER_CONFIG": str(lab.config),
            "LOCAL_IMAGER_FACTORY_URL": factory.url,
        }
        own = {"schematics/edge.yaml": EDGE, "schematics/rack.yaml": RACK}
        runner.commit({**files(), **own, "ci/requirements.txt": requirements.read_text() + pinned})
        runner.fresh_checkout()
        runner.run("make lock").expect(0, "2 schematics", "signed by")
        runner.commit({"local-imager.lock": (runner.checkout / "local-imager.lock").read_text()})
        summary = first_build(runner)
        kept = shutil.copytree(runner.checkout / "out", folder / "built")
        yield Site(runner, factory, action, summary, kept)


def first_build(runner: CleanRunner) -> dict[str, Any]:
    """Build with make in a checkout with the lock, and keep the store under every job's key."""
    runner.fresh_checkout()
    runner.done = frozenset(install_lines())
    runner.run("make images").expect(0, "### Images", "4 built", "| schematics/edge.yaml |")
    summary: dict[str, Any] = json.loads((runner.checkout / ".ci/summary.json").read_text())
    lock = Digest.of((runner.checkout / "local-imager.lock").read_bytes()).hex
    for key in (f"local-imager-{lock}", f"local-imager-Linux-X64-{lock}"):
        runner.store_cache(key, ".ci/store")
    return summary


def install_lines() -> list[str]:
    """What installs the tool: the rule of the Makefile, spelt out."""
    rule = files()["Makefile"].partition("ci/requirements.txt\n")[2]
    lines = [line.strip().replace("$(TOOL)", ".ci/tool") for line in rule.splitlines()]
    assert len(lines) == 3
    return lines[:2]


def outcomes(runner: CleanRunner, name: str = ".ci/summary.json") -> dict[str, int]:
    counts = json.loads((runner.checkout / name).read_text())["counts"]
    return {outcome: number for outcome, number in counts.items() if number}


def test_the_first_job_built_and_exported_what_the_matrix_lists(site: Site) -> None:
    assert site.summary["exit_code"] == 0
    assert {(cell["schematic"], cell["asset"]) for cell in site.summary["cells"]} == {
        (f"schematics/{name}.yaml", asset) for name in ("edge", "rack") for asset in (CMDLINE, UKI)
    }
    for cell in site.summary["cells"]:
        path = site.asset(Path(cell["schematic"]).stem, cell["asset"])
        assert str(Digest.of(path.read_bytes())) == cell["digest"]
    assert "rack=7" in site.asset("rack", CMDLINE).read_text()


def test_make_takes_the_second_run_from_the_store_and_its_gates_answer(site: Site) -> None:
    runner = site.with_store()
    # Caches travel as archives: nothing of a store gets lost in one.
    script = "tar -cf store.tar .ci/store && rm -r .ci/store && tar -xf store.tar && rm store.tar"
    runner.run(script).expect(0)
    runner.run("make images").expect(0, "4 cached")
    assert outcomes(runner) == {"cached": 4}
    runner.run("make check-lock").expect(0, "up to date")
    site.offer()
    runner.run("make gate").expect(0, "identical")
    assert "<script" not in (runner.checkout / ".ci/comparison.html").read_text()


def test_every_command_of_the_guide(site: Site) -> None:
    """What stands in its console blocks, but for the bundle, which docs/bundles.md tells."""
    runner = site.with_store()
    site.offer()
    for target in ("release", "new"):
        (runner.checkout / target).mkdir()
        for asset in (CMDLINE, UKI):
            shutil.copyfile(site.asset("edge", asset), runner.checkout / target / asset)
    (runner.checkout / "papers").mkdir()
    for copy in ("old.lock", "papers/local-imager.lock"):
        shutil.copyfile(runner.checkout / "local-imager.lock", runner.checkout / copy)
    text = "".join(text for language, text in blocks() if language == "console")
    lines = [line for line in text.splitlines() if not line.startswith("local-imager bundle")]
    assert len(lines) >= 8
    env = {"LOCAL_IMAGER_STORE": ".ci/store"}
    done = runner.run("\n".join(['PATH="$PWD/.ci/tool/bin:$PATH"', *lines]), env=env)
    done.expect(0, "identical bytes", "the locks say the same")


def test_the_workflow_for_github_builds_from_the_cache_and_holds_to_the_release(
    site: Site,
) -> None:
    steps = workflow("plain")["jobs"]["images"]["steps"]
    env = workflow("plain")["env"]
    job = site.job(**env).play(steps[:-1])
    assert job.code == 0, job.said
    assert outcomes(site.runner) == {"cached": 4}
    assert job.known["steps.None.outputs.cache-hit"] == "true"
    assert "| schematics/rack.yaml | v1.13.0 | cmdline-metal-amd64 | cached |" in job.summary
    release = site.runner.checkout / "release"
    release.mkdir()
    shutil.copyfile(site.asset("edge", CMDLINE), release / CMDLINE)
    assert job.play(steps[-1:]).code == 0, job.said
    shutil.copyfile(site.asset("rack", CMDLINE), release / CMDLINE)
    assert job.play(steps[-1:]).code == 4, job.said
    assert "rack=7" in job.said


def test_the_jobs_for_gitlab_end_with_the_code_of_what_went_wrong(site: Site) -> None:
    pipeline, runner = gitlab(), site.runner
    site.offer()
    gitlab_job(runner, pipeline, "images", {}).expect(0, "4 cached")
    gitlab_job(runner, pipeline, "compare", {}).expect(0, "identical")
    gitlab_job(runner, pipeline, "lock", {}).expect(0, "up to date")
    site.offer(CMDLINE, UKI)
    differs = gitlab_job(runner, pipeline, "compare", {})
    assert differs.code in pipeline["compare"]["allow_failure"]["exit_codes"], differs.text
    differs.expect(4, "rack=7")


def test_a_cell_that_fails_costs_no_other_and_the_code_says_what_to_do(
    site: Site, folder: Path
) -> None:
    pipeline, runner = gitlab(), site.runner
    matrix = (runner.origin / "matrix.yaml").read_text()
    runner.commit({"matrix.yaml": matrix + BAD})
    try:
        gitlab_job(runner, pipeline, "images", {}).expect(
            2, "4 cached, 1 failed", "(signing-keys-missing)"
        )
        assert outcomes(runner) == {"cached": 4, "failed": 1}
        runner.commit({"matrix.yaml": matrix.replace("-uki.efi", ".iso")})
        nowhere = gitlab_job(runner, pipeline, "images", {"DOCKER_HOST": "unix:///nowhere"})
        assert nowhere.code in pipeline["images"]["retry"]["exit_codes"], nowhere.text
        assert outcomes(runner) == {"cached": 2, "failed": 2}
    finally:
        runner.commit({"matrix.yaml": matrix})
    upstream = runner.env["LOCAL_IMAGER_CONFIG"]
    stranger = settings_file(
        runner.folder / "home", Path(upstream).parent / "upstream", Signing(), PREFIX
    )
    refused = gitlab_job(runner, pipeline, "images", {"LOCAL_IMAGER_CONFIG": str(stranger)})
    refused.expect(3, "failed")


def test_the_action_installs_the_version_that_is_named(site: Site) -> None:
    (step,) = [s for s in workflow("images")["jobs"]["images"]["steps"] if s.get("id") == "images"]
    step["with"] = {"package": f"local-imager=={__version__}", "matrix": "none.yaml", "lock": ""}
    site.runner.fresh_checkout()
    job = site.job().play([step])
    assert job.code == 2, job.said
    assert f"local-imager {__version__}" in job.said
    assert "cannot read the matrix none.yaml" in job.summary.replace("\\", "")
    tool = site.runner.folder / "temp" / "local-imager"
    installed = [path.parent.name for path in tool.rglob("local_imager/__init__.py")]
    assert installed == ["local_imager"] and not list(tool.rglob("local-imager.pth"))
    shutil.rmtree(tool)


def test_the_action_builds_compares_and_tells(site: Site) -> None:
    site.offer()
    steps = workflow("images")["jobs"]["images"]["steps"]
    job = site.job().play(steps)
    assert job.code == 0, job.said
    outputs = {
        name: job.known[f"steps.images.outputs.{name}"]
        for name in ("summary", "digests", "differs", "exit-code")
    }
    digests = json.loads(outputs["digests"])
    assert sorted(digests.values()) == sorted(cell["digest"] for cell in site.summary["cells"])
    assert (outputs["differs"], outputs["exit-code"]) == ("false", "0")
    assert json.loads((site.runner.checkout / outputs["summary"]).read_text())["exit_code"] == 0
    assert job.summary.count("| identical |") == 4
    assert "differs from the factory: false" in job.said
    assert "(foreign, unverified)" in job.said, "a later step finds the program"
    (kept,) = site.runner.cache.glob("local-imager-Linux-X64-*-*")
    assert list(kept.glob("blobs/sha256/*"))
    shutil.rmtree(kept)  # with what was fetched from the factory


def test_the_action_keeps_what_a_failed_build_left_under_another_key(site: Site) -> None:
    steps = workflow("images")["jobs"]["images"]["steps"][:2]
    steps[1]["with"] = {"matrix": "bad.yaml"}
    matrix = (site.runner.origin / "matrix.yaml").read_text()
    site.runner.commit({"bad.yaml": matrix + BAD})
    job = site.job().play(steps)
    assert job.code == 2, job.said
    assert "| failed |" in job.summary
    (kept,) = site.runner.cache.glob("local-imager-Linux-X64-*-part-7-1")
    shutil.rmtree(kept)


def test_the_action_fails_for_a_difference(site: Site) -> None:
    site.offer(CMDLINE)
    steps = workflow("images")["jobs"]["images"]["steps"][:2]
    job = site.job().play(steps)
    assert job.code == 4, job.said
    assert job.known["steps.images.outputs.differs"] == "true"
    assert job.known["steps.images.outputs.exit-code"] == "4"
    assert job.summary.count("| different |") == 1


def test_the_action_compares_schematics_that_a_matrix_names_from_the_root(site: Site) -> None:
    site.offer()
    matrix = site.runner.origin / "matrix.yaml"
    text = matrix.read_text().replace("schematics/", f"{site.runner.checkout}/schematics/")
    site.runner.commit({"absolute.yaml": text})
    steps = workflow("images")["jobs"]["images"]["steps"][:2]
    steps[1]["with"] |= {"matrix": "absolute.yaml", "cache": "false"}
    job = site.job().play(steps)
    assert job.code == 0, job.said
    assert job.summary.count("| identical |") == 4


def test_what_is_given_to_the_action_never_becomes_a_command(site: Site) -> None:
    runner = site.runner
    runner.fresh_checkout()
    evil = "$(touch pwned)`touch pwned`'\"; touch pwned # <b>"
    (step,) = [s for s in workflow("images")["jobs"]["images"]["steps"] if s.get("id") == "images"]
    step["with"] = dict.fromkeys(("matrix", "out", "compare-with", "factory", "config"), evil)
    step["with"] |= {"lock": "", "reports": ".ci/reports"}
    job = site.job().play([step])
    assert job.code == 2, job.said
    assert not (runner.checkout / "pwned").exists()
    assert "\\`touch pwned\\`" in job.summary, "nor markup"
    assert "&lt;b&gt;" in job.summary and "<b>" not in job.summary
