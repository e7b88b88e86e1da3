"""Bringing the trusted root up to date over TUF: the only thing here that goes online.

python-tuf's client does the protocol (The Update Framework 1.0): a chain of root metadata from a
root that is known, thresholds of signatures, expiry, and versions that never go back. It keeps its
metadata beside the kept root, so a refresh also notices a repository that was rolled back.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from local_imager.errors import InputError, SourceError, VerificationRefused
from local_imager.events import printable
from local_imager.oci.durable import explained
from local_imager.sources.rootfile import TUF_ROLES, packaged_file

PUBLIC_URL: Final = "https://tuf-repo-cdn.sigstore.dev"
MAX_BOOTSTRAP_BYTES: Final = 512 * 1024
_TARGET: Final = "trusted_root.json"


def download_root(
    url: str, bootstrap: Path | None, folder: Path
) -> tuple[bytes, dict[str, int], str]:
    """Return the repository's trusted root, verified, its metadata's versions, and when.

    ``bootstrap`` is a root metadata file to begin with (None: the public instance's, packaged
    with sigstore). Raises :class:`InputError` without one, :class:`SourceError` when the
    repository cannot be reached, :class:`VerificationRefused` when its metadata does not verify,
    has expired or is older than what was seen.
    """
    from tuf.api.exceptions import BadVersionNumberError, DownloadError, RepositoryError
    from tuf.ngclient.updater import Updater

    known = bootstrap or (packaged_file("root.json") if url == PUBLIC_URL else None)
    if known is None:
        raise InputError("another repository needs the root metadata to begin with (--root)")
    metadata_dir = folder / "tuf" / hashlib.sha256(url.encode()).hexdigest()[:16]
    with explained(f"keep the repository's metadata in {metadata_dir}"):
        metadata_dir.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".download-", dir=folder)
    stays = "the trusted root in force stays, and verification goes on with it"
    with scratch as targets:
        try:
            updater = Updater(
                str(metadata_dir), url, targets, f"{url}/targets/", bootstrap=_bytes_of(known)
            )
            updater.refresh()
            target = updater.get_targetinfo(_TARGET)
            if target is None:
                raise VerificationRefused(f"{url} offers no {_TARGET}", hint=stays)
            data = Path(updater.download_target(target)).read_bytes()
        except DownloadError as error:
            raise SourceError(
                f"{url} cannot be reached: {_told(error)}",
                hint=f"{stays}; `local-imager trust refresh` needs a network",
                code="offline",
            ) from error
        except (RepositoryError, ValueError) as error:
            rolled_back = isinstance(error, BadVersionNumberError)
            raise VerificationRefused(
                f"{url} offers metadata that is not accepted: {error}",
                hint=stays,
                code="rollback" if rolled_back else "refresh-refused",
            ) from error
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return data, {role: _version(metadata_dir, role) for role in TUF_ROLES}, now


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BOOTSTRAP_BYTES)
    except OSError as error:
        raise InputError(
            f"the root metadata cannot be read: {error.strerror}", source=str(path)
        ) from error


def _version(metadata_dir: Path, role: str) -> int:
    """Read the version of metadata that the client has verified and written."""
    document = json.loads((metadata_dir / f"{role}.json").read_bytes())
    return int(document["signed"]["version"])


def _told(error: Exception) -> str:
    """Return what the innermost of the chained errors says: the outer ones are often silent."""
    said = ""
    inner: BaseException | None = error
    while inner is not None:
        said, inner = str(inner) or said, inner.__cause__ or inner.__context__
    return printable(said, limit=200) or "no answer"
