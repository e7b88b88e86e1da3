"""Where the lab keeps its results, and the names and numbers that all of it shares."""

import os
from dataclasses import dataclass
from pathlib import Path

NAME_PREFIX = "lab.local-imager.test"
"""Registry part of every lab image: a reserved top-level domain, so no real host can answer."""

REALISTIC_PREFIX = f"{NAME_PREFIX}/realistic"
"""Second registry prefix, for the image set that weighs what the official one weighs."""

KEYLESS_PREFIX = f"{NAME_PREFIX}/keyless"
"""Third registry prefix, for the image set that is signed by a private Sigstore."""

EPOCH_S = 1559424892
"""Time stamp of everything the lab writes: the official factory's own epoch."""

DEFAULT_VERSIONS = ("v1.9.0", "v1.12.1", "v1.13.0")

ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, slots=True)
class Place:
    """The folder that holds the lab, with a property for each part that others rely on."""

    root: Path

    @property
    def upstream(self) -> Path:
        """OCI image layout with every signed image of the lab."""
        return self.root / "upstream"

    @property
    def steps(self) -> Path:
        """Results of the single build steps, one folder each."""
        return self.root / "steps"

    @property
    def keys(self) -> Path:
        """Private signing key of the lab (mode 0700)."""
        return self.root / "keys"

    @property
    def public_key(self) -> Path:
        return self.root / "lab.pub"

    @property
    def trusted_root(self) -> Path:
        """Trusted root of the private Sigstore that signed the images below KEYLESS_PREFIX."""
        return self.root / "keyless-trusted-root.json"

    @property
    def bin(self) -> Path:
        """Programs built for the lab: cosign and crane."""
        return self.root / "bin"

    @property
    def record(self) -> Path:
        """What was built from what, as JSON."""
        return self.root / "lab.json"

    @property
    def services(self) -> Path:
        """Data, logs and state of the engines and registries that `lab run` starts."""
        return self.root / "services"

    def ensure(self) -> None:
        """Make the folders that every command needs."""
        for folder in (self.root, self.steps, self.bin, self.services):
            folder.mkdir(parents=True, exist_ok=True)
        self.keys.mkdir(mode=0o700, exist_ok=True)


def find_place() -> Place:
    """Return the lab's place: LOCAL_IMAGER_LAB, or a folder in the user's cache."""
    named = os.environ.get("LOCAL_IMAGER_LAB")
    if named:
        return Place(Path(named).expanduser().absolute())
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Place(Path(cache).absolute() / "local-imager-lab")


def parse_version(text: str) -> tuple[int, int, int]:
    """Return (major, minor, patch) of ``v1.13.0``; ValueError for anything else."""
    parts = text.removeprefix("v").split(".")
    if not text.startswith("v") or len(parts) != 3 or not all(p.isdigit() for p in parts):
        raise ValueError(f"not a Talos version: {text!r} (expected the form v1.13.0)")
    major, minor, patch = (int(part) for part in parts)
    return major, minor, patch
