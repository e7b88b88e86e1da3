"""A CI system in small: a clean container, checkouts, a cache, and jobs of GitHub and GitLab.

The container has nothing of this repository. Actions of others are replaced by what they do:
checkout clones, cache keeps a copy of a store, upload-artifact looks whether the files are there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

from lab.clean import CleanImage
from local_imager.oci.model import Digest
from tests.integration.upstreams import seeded_store
from tests.pipelinedocs import ACTION, expression, holds

PLATFORM = {
    "runner.os": "Linux",
    "runner.arch": "X64",
    "github.run_id": "7",
    "github.run_attempt": "1",
}


@dataclass(frozen=True)
class Ended:
    """How a step or a job ended, and what it said."""

    code: int
    text: str

    def expect(self, code: int, *phrases: str) -> Ended:
        assert self.code == code, f"status {self.code} in place of {code}:\n{self.text[-6000:]}"
        for phrase in phrases:
            assert phrase in self.text, f"{phrase!r} was not said:\n{self.text[-6000:]}"
        return self


@dataclass
class CleanRunner:
    """The container with a folder that both see, and environment variables of the runner."""

    container: Any
    folder: Path
    env: dict[str, str]
    steps: int = 0
    # Lines that were run and whose result every checkout keeps.
    done: frozenset[str] = frozenset()

    @property
    def checkout(self) -> Path:
        """Where every job has its checkout."""
        return self.folder / "work"

    @property
    def cache(self) -> Path:
        """What jobs keep for later ones, by key."""
        return self.folder / "cache"

    @property
    def origin(self) -> Path:
        """The repository that jobs clone."""
        return self.folder / "origin"

    def run(
        self, script: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Ended:
        """Run a script as GitHub runs one for ``shell: bash``."""
        self.steps += 1
        path = self.folder / "steps" / f"{self.steps}.sh"
        path.parent.mkdir(exist_ok=True)
        lines = (line for line in script.splitlines() if line.strip() not in self.done)
        path.write_text("\n".join(lines))
        done = self.container.exec_run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(path)],
            workdir=str(cwd or self.checkout),
            environment={**self.env, **(env or {})},
        )
        return Ended(done.exit_code, done.output.decode(errors="replace"))

    def commit(self, files: Mapping[str, str]) -> None:
        """Put files into the repository."""
        for name, text in files.items():
            path = self.origin / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git = "git -c user.name=ci -c user.email=ci@example.com"
        script = f"git init -q -b main . && git add -A && {git} commit -qm files"
        self.run(script, cwd=self.origin).expect(0)

    def fresh_checkout(self) -> Path:
        """Clone the repository anew; the tool stays, as in an image with the requirements in it."""
        tool, kept = self.checkout / ".ci" / "tool", self.folder / "tool"
        if tool.exists():
            tool.rename(kept)
        shutil.rmtree(self.checkout, ignore_errors=True)
        self.run(f"git clone -q {self.origin} {self.checkout}", cwd=self.folder).expect(0)
        if kept.exists():
            tool.parent.mkdir()
            kept.rename(tool)
            (tool / "ready").touch()
        return self.checkout

    def store_cache(self, key: str, path: str) -> None:
        """Do what ``cache/save`` does: keep a copy of a store, unless the key has one."""
        if (self.checkout / path).exists() and not (self.cache / key).exists():
            seeded_store(self.checkout / path, self.cache / key)

    def restore_cache(self, path: str, key: str, others: Sequence[str] = ()) -> str:
        """Do what ``cache/restore`` does; returns its output ``cache-hit``."""
        for name in (key, *(f"{prefix}*" for prefix in others)):
            for kept in sorted(self.cache.glob(name)):
                seeded_store(kept, self.checkout / path)
                return "true" if name == key else "false"
        return ""


def _load(engine: docker.DockerClient, image: CleanImage) -> None:
    """Give the engine the image once, in place of former ones."""
    try:
        engine.images.get(image.name)
    except docker.errors.ImageNotFound:
        for former in engine.images.list(name=image.name.partition(":")[0]):
            engine.images.remove(str(former.id), force=True)
        with image.archive.open("rb") as archive:
            engine.images.load(archive)


@contextlib.contextmanager
def clean_runner(
    engine: docker.DockerClient, image: CleanImage, folder: Path, see: Sequence[Path]
) -> Iterator[CleanRunner]:
    """Run the container, with the engine's socket, the folder, and other paths to read."""
    _load(engine, image)
    binds = {str(path): {"bind": str(path), "mode": "ro"} for path in see}
    binds[str(folder)] = {"bind": str(folder), "mode": "rw"}
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    groups = []
    if address.startswith("unix://"):
        socket = address.removeprefix("unix://")
        binds[socket] = {"bind": socket, "mode": "rw"}
        groups = [Path(socket).stat().st_gid]
    for name in ("cache", "home", "origin", "temp"):
        (folder / name).mkdir()
    container = engine.containers.run(
        image.name,
        ["sleep", "3600"],  # ends by itself when the test was killed
        detach=True,
        auto_remove=True,
        init=True,
        network_mode="host",  # a factory of the test answers on loopback
        user=f"{os.getuid()}:{os.getgid()}",
        group_add=groups,
        volumes=binds,
    )
    try:
        env = {"HOME": str(folder / "home"), "DOCKER_HOST": address, "CI": "true"}
        yield CleanRunner(container, folder, env)
    finally:
        with contextlib.suppress(docker.errors.NotFound):
            container.kill()
            container.wait(condition="removed")


@dataclass
class GithubJob:
    """A job of a workflow; ``action`` is where ``OWNER/local-imager@COMMIT`` is checked out."""

    runner: CleanRunner
    action: Path
    env: dict[str, str]
    known: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    said: str = ""
    code: int = 0
    after: list[tuple[str, str]] = field(default_factory=list)
    path: str = ""

    def play(self, steps: Sequence[Mapping[str, Any]]) -> GithubJob:
        """Run steps as the runner does, and what actions do when the job is over."""
        self.known |= {**PLATFORM, "runner.temp": str(self.runner.folder / "temp")}
        for step in steps:
            self.step(step, self.known)
        if not self.code:
            for key, path in self.after:
                self.runner.store_cache(key, path)
        return self

    def step(self, step: Mapping[str, Any], known: dict[str, str]) -> None:
        """Run a step unless its condition says no; a failure is remembered."""
        if not holds(step.get("if", ""), known, failed=bool(self.code)):
            return
        given = {k: self._text(v, known) for k, v in step.get("with", {}).items()}
        if "run" in step:
            env = {k: self._text(v, known) for k, v in step.get("env", {}).items()}
            self._run(step, env, known)
        else:
            self._use(step, given, known)

    def _text(self, value: object, known: Mapping[str, str]) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return expression(text, known)

    def _run(self, step: Mapping[str, Any], env: Mapping[str, str], known: dict[str, str]) -> None:
        assert "${{" not in step["run"], "an expression inside a script can be a command"
        files = {
            name: self.runner.folder / "temp" / name
            for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
        }
        for path in files.values():
            path.write_text("")
        script = f'export PATH="{self.path}$PATH"\n{step["run"]}'
        whole = {**self.env, **env, **{name: str(path) for name, path in files.items()}}
        done = self.runner.run(script, env=whole)
        self.said += f"\n$ {step['run']}\n{done.text}"
        self.code = self.code or done.code
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        for line in files["GITHUB_PATH"].read_text().splitlines():
            self.path = f"{line}:{self.path}"
        for line in files["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, value = line.partition("=")
            known[f"steps.{step['id']}.outputs.{name}"] = value

    def _use(
        self, step: Mapping[str, Any], given: Mapping[str, str], known: dict[str, str]
    ) -> None:
        action, _, ref = step["uses"].partition("@")
        assert len(ref) == 40 or ref == "COMMIT", f"{action} is not pinned by a commit"
        if action == "actions/checkout":
            assert given["persist-credentials"] == "false"
            self.runner.fresh_checkout()
        elif action in ("actions/cache", "actions/cache/restore"):
            others = given["restore-keys"].split()
            hit = self.runner.restore_cache(given["path"], given["key"], others)
            known[f"steps.{step.get('id')}.outputs.cache-hit"] = hit
            if action == "actions/cache" and hit != "true":
                self.after.append((given["key"], given["path"]))
        elif action == "actions/cache/save":
            self.runner.store_cache(given["key"], given["path"])
        elif action == "actions/upload-artifact":
            for name in given["path"].split():
                assert (self.runner.checkout / name).exists(), name
        else:
            assert action == "OWNER/local-imager", action
            self._composite(step, given, known)

    def _composite(
        self, step: Mapping[str, Any], given: Mapping[str, str], known: dict[str, str]
    ) -> None:
        assert set(given) <= set(ACTION["inputs"])
        inner = {**PLATFORM, "runner.temp": known["runner.temp"]}
        inner["github.action_path"] = str(self.action)
        for name, entry in ACTION["inputs"].items():
            inner[f"inputs.{name}"] = given.get(name, entry["default"])
        values = _Empty(inner)
        installed = Path(known["runner.temp"], "local-imager", "bin", "local-imager").exists()
        for one in ACTION["runs"]["steps"]:
            assert "uses" in one or one["shell"] == "bash"
            if one["name"] == "Install" and installed and "package" not in given:
                self.path = f"{known['runner.temp']}/local-imager/path:{self.path}"
                continue  # once for all jobs, as it is always the same
            self.step(one, values)
        for name, entry in ACTION["outputs"].items():
            known[f"steps.{step['id']}.outputs.{name}"] = expression(entry["value"], values)


class _Empty(dict[str, str]):
    """Outputs of steps that did not run are empty; nothing else is."""

    def __missing__(self, key: str) -> str:
        assert key.startswith("steps."), key
        return ""


def gitlab_job(
    runner: CleanRunner, pipeline: Mapping[str, Any], name: str, env: Mapping[str, str]
) -> Ended:
    """Run a job as GitLab does; ``env`` stands for the image, the services and their variables."""
    job = pipeline[name]
    assert job["stage"] in pipeline["stages"]
    own = {k: v for k, v in pipeline["variables"].items() if not k.startswith("DOCKER_")}
    checkout = runner.fresh_checkout()
    cache = job.get("cache")
    key = ""
    if cache:
        files = [(checkout / file).read_bytes() for file in cache["key"]["files"]]
        key = f"{cache['key']['prefix']}-{Digest.of(b''.join(files)).hex}"
        runner.restore_cache(cache["paths"][0], key)
    lines = [*pipeline["default"]["before_script"], *job["script"]]
    done = runner.run("\n".join(lines), env={**own, **env})
    if (
        cache
        and cache.get("policy") != "pull"
        and (done.code == 0 or cache.get("when") == "always")
    ):
        runner.store_cache(key, cache["paths"][0])
    for path in job.get("artifacts", {}).get("paths", ()):
        assert done.code or (checkout / path).exists(), path
    return done
