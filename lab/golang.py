"""Programs built from Go modules: the real imager of each version, cosign and crane.

The modules come through the proxy that the machine's own Go configuration names.
"""

import json
import os
import shutil
from pathlib import Path

from lab.console import LabError, run
from lab.place import parse_version

TALOS_MODULE = "github.com/siderolabs/talos"
MACHINERY_MODULE = f"{TALOS_MODULE}/pkg/machinery"
INSTALLER_PACKAGE = f"{TALOS_MODULE}/cmd/installer"

TOOLS = {
    "crane": ("github.com/google/go-containerregistry/cmd/crane", "v0.22.1"),
    "cosign": ("github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3"),
}

SEEN_VERSIONS = "v1.9.0 v1.9.5 v1.10.0 v1.11.0 v1.11.5 v1.12.0 v1.12.1 v1.13.0".split()
"""Versions that the proxy was seen to serve with both of their modules; only named in a hint."""

_FLAGS = ["-trimpath", "-ldflags", "-s -w"]
_TAGS = ["-tags", "tcell_minimal,grpcnotrace"]


def go_toolchain(version: str) -> str:
    """Return the GOTOOLCHAIN that a Talos version builds with.

    v1.9 does not compile with Go 1.26 (a name that go-debug links to is gone); its own is 1.23.4.
    v1.10 and v1.11 were written for 1.24; newer ones build with whatever is new enough.
    """
    minor = parse_version(version)[:2]
    if minor <= (1, 9):
        return "go1.23.4"
    if minor <= (1, 11):
        return "go1.24.6"
    return "auto"


def _go_env(toolchain: str = "auto") -> dict[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": toolchain,
        "GOWORK": "off",
    }


def need_go() -> None:
    """Raise LabError when there is no Go command."""
    if shutil.which("go") is None:
        raise LabError("the lab compiles the real imager and needs Go 1.21 or later on PATH")


def prepare_imager(version: str, module: Path) -> None:
    """Write a Go module that builds the imager of `version`, and download what it needs.

    The version's own replacements are kept but for the nested machinery module, which is
    published. go.sum starts from the one inside the version's module, since some replaced modules
    are not in the public checksum database.
    """
    module.mkdir(parents=True, exist_ok=True)
    env = _go_env(go_toolchain(version))
    try:
        argv = ["go", "mod", "download", "-json", f"{TALOS_MODULE}@{version}"]
        answer = run(argv, cwd=module, env=env)
        run(["go", "mod", "download", f"{MACHINERY_MODULE}@{version}"], cwd=module, env=env)
    except LabError as problem:
        raise LabError(
            f"the Go module proxy does not serve Talos {version}; served when this was written: "
            f"{', '.join(SEEN_VERSIONS)}\n  {problem}"
        ) from problem
    found = json.loads(answer)
    described = json.loads(run(["go", "mod", "edit", "-json", found["GoMod"]], cwd=module, env=env))
    lines = [
        "module lab.local-imager.test/imager",
        f"go {described['Go']}",
        f"require {TALOS_MODULE} {version}",
        f"require {MACHINERY_MODULE} {version}",
    ]
    for item in described.get("Replace") or []:
        old, new = item["Old"], item["New"]
        if "Version" in new:
            what = " ".join(filter(None, (old["Path"], old.get("Version"))))
            lines.append(f"replace {what} => {new['Path']} {new['Version']}")
    (module / "go.mod").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    shutil.copyfile(Path(found["Dir"]) / "go.sum", module / "go.sum")
    run(["go", "list", "-mod=mod", "-deps", *_TAGS, INSTALLER_PACKAGE], cwd=module, env=env)


def compile_imager(version: str, module: Path, target: Path) -> dict[str, str]:
    """Compile the imager of `version` in a module made by `prepare_imager`; return facts."""
    env = _go_env(go_toolchain(version))
    argv: list[str | Path] = [
        "go",
        "build",
        "-mod=mod",
        *_TAGS,
        *_FLAGS,
        "-o",
        target,
        INSTALLER_PACKAGE,
    ]
    run(argv, cwd=module, env=env)
    return {"talos": version, "go": run(["go", "version"], cwd=module, env=env).split()[2]}


def install_tool(name: str, target: Path) -> dict[str, str]:
    """Build one of TOOLS into the folder `target` and return module, version and toolchain."""
    package, version = TOOLS[name]
    env = {**_go_env(), "GOBIN": str(target)}
    run(["go", "install", *_FLAGS, f"{package}@{version}"], cwd=target, env=env)
    go = run(["go", "version", "-m", target / name], env=env).splitlines()[0].split()[-1]
    return {"module": package, "version": version, "go": go}
