"""Which trusted root file is in force, and keeping one that was brought up to date.

The kept file lies in the user's data directory under its digest; ``state.json`` beside it says
which one counts, so a change is one replaced file and the one before stays at hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from local_imager.errors import SettingsError, VerificationRefused
from local_imager.oci.durable import FileLock, explained, replace_file
from local_imager.settings import default_store

RootKind = Literal["sigstore package", "refreshed", "file"]
_STATE: Final = "state.json"
_MAX_STATE_BYTES: Final = 64 * 1024
# The metadata whose version numbers TUF never lets go back.
TUF_ROLES: Final = ("root", "timestamp", "snapshot", "targets")
_PACKAGED: Final = "_store/https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


@dataclass(frozen=True, slots=True)
class RootFile:
    """A trusted root file and where it came from; ``digest`` is empty when any content counts."""

    path: Path
    kind: RootKind
    digest: str = ""
    source: str = ""
    fetched_at: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)


def trust_dir() -> Path:
    """Return the directory of kept trusted roots, in the user's data directory."""
    return default_store().parent / "trust"


def packaged_file(name: str) -> Path | None:
    """Return a file of the public instance inside the sigstore package, if that is installed.

    Found without importing the package, which would load a network client.
    """
    from importlib.util import find_spec

    spec = find_spec("sigstore")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _PACKAGED / name
        if path.is_file():
            return path
    return None


def default_root_file() -> RootFile | None:
    """Return the file that counts where no rule names one: a refreshed one, else the packaged.

    None when there is neither; raises :class:`SettingsError` when the record of a refresh cannot
    be read.
    """
    kept = kept_root_file(trust_dir())
    if kept is not None:
        return kept
    packaged = packaged_file("trusted_root.json")
    return RootFile(packaged, "sigstore package") if packaged is not None else None


def kept_root_file(folder: Path) -> RootFile | None:
    """Return the root that was kept last; None when none was, :class:`SettingsError` if damaged."""
    state = folder / _STATE
    try:
        with state.open("rb") as stream:
            data = stream.read(_MAX_STATE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"{state}: {error.strerror}") from error
    try:
        document: dict[str, Any] = json.loads(data)["current"]
        digest = str(document["digest"])
        versions = {str(role): int(number) for role, number in document["versions"].items()}
        source, fetched_at = str(document["source"]), str(document["fetched_at"])
        path = folder / f"{digest.removeprefix('sha256:')}.json"
        if path.parent != folder:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SettingsError(
            "the record of the refreshed trusted root cannot be read",
            hint=f"remove {folder} to go back to the root in the sigstore package",
            source=str(state),
        ) from error
    return RootFile(path, "refreshed", digest, source, fetched_at, versions)


def keep_root(
    folder: Path, data: bytes, *, source: str, fetched_at: str, versions: Mapping[str, int]
) -> RootFile:
    """Let a trusted root count from now on; the one before stays beside it.

    Refuses one whose metadata is older than that of the root before
    (:class:`VerificationRefused`, ``rollback``). Raises :class:`StoreError`.
    """
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with explained(f"keep the trusted root in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock").acquire():
            before = kept_root_file(folder)
            if before is not None and before.source == source:
                _refuse_older(before.versions, versions, source)
            replace_file(folder / f"{digest.removeprefix('sha256:')}.json", data)
            current = {
                "digest": digest,
                "source": source,
                "fetched_at": fetched_at,
                "versions": dict(versions),
            }
            previous = (
                {"digest": before.digest, "fetched_at": before.fetched_at} if before else None
            )
            body = {"current": current, "previous": previous}
            replace_file(folder / _STATE, json.dumps(body, indent=1).encode())
    kept = kept_root_file(folder)
    if kept is None:
        raise SettingsError("the trusted root was removed while it was written")
    return kept


def _refuse_older(before: Mapping[str, int], now: Mapping[str, int], source: str) -> None:
    for role in TUF_ROLES:
        if now.get(role, 0) < before.get(role, 0):
            raise VerificationRefused(
                f"{source} offers version {now.get(role, 0)} of its {role} metadata, "
                f"and version {before[role]} was seen before: it was rolled back",
                hint="the root in force stays; try again later, or ask who runs the mirror",
                code="rollback",
            )
