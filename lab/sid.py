"""A root file system of the newest Debian (sid), made by debootstrap, and work inside it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from lab.console import LabError, run

_SID_APT_CONF = """\
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
"""


def mirror() -> str:
    """Return the base address of the Debian archive that this machine's own apt uses."""
    listing = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    for line in dict.fromkeys(listing.split()):
        if re.search(r"/debian/?$", line):
            return line
    raise LabError("this machine's apt configuration names no Debian archive")


def make_sid(root: Path, packages: Sequence[str], log: Path) -> None:
    """Make a root file system of Debian sid with the packages and their dependencies in `root`."""
    if os.geteuid() != 0:
        raise LabError("making a Debian root file system needs root: run this as root")
    run(["debootstrap", "--variant=minbase", "sid", root, mirror()], log=log)
    (root / "etc/apt/apt.conf.d/99lab").write_text(_SID_APT_CONF)
    forbid = root / "usr/sbin/policy-rc.d"
    forbid.write_text("#!/bin/sh\nexit 101\n")
    forbid.chmod(0o755)
    in_root(root, ["dpkg", "--add-architecture", "arm64"], log)
    in_root(root, ["apt-get", "update"], log)
    install_in(root, packages, log)


def install_in(root: Path, packages: Sequence[str], log: Path) -> None:
    """Install packages into a root file system that `make_sid` made."""
    in_root(root, ["apt-get", "install", "-y", *packages], log)


def in_root(root: Path, argv: Sequence[str], log: Path) -> str:
    """Run a program inside a root file system and return its output."""
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
    }
    return run(["chroot", root, *argv], env=env, log=log)


def package_versions(root: Path, log: Path) -> dict[str, str]:
    """Return name and version of every package in a root file system."""
    listing = in_root(root, ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"], log)
    return dict(line.split(" ", 1) for line in listing.splitlines())
