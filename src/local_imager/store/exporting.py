"""Putting a stored file where the user wants it, with its checksum beside.

Reflink where the file system can, else a read-only hard link for files without secrets, else a
copy that keeps holes. A file that the user changed after an earlier export, or that was never ours,
is not overwritten unless asked.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from local_imager.errors import InputError, NotFound
from local_imager.oci import sparse
from local_imager.oci.blobs import STAGING_GRACE_S, is_locked, lock_open_file
from local_imager.oci.durable import explained, replace_file, sync_dir
from local_imager.oci.export import NO_LINK
from local_imager.oci.model import Digest
from local_imager.oci.seal import is_sealed, seal
from local_imager.store.records import StoredAsset

Method = Literal["kept", "reflink", "hardlink", "copy"]
CHECKSUM_SUFFIX: Final = ".sha256"


@dataclass(frozen=True, slots=True)
class Exported:
    """Where an exported file is and how it got there (``kept``: it was there already)."""

    path: Path
    method: Method
    digest: Digest
    size_bytes: int


def export_file(
    asset: StoredAsset, dest: Path, *, hard_link: bool = True, overwrite: bool = False
) -> Exported:
    """Export an asset to the file ``dest`` and write ``dest.sha256`` (``sha256sum -c`` format).

    The file appears complete or not at all. Secret (private) assets are never linked and get mode
    0600. Raises :class:`InputError` for a foreign or changed file in the way,
    :class:`StoreError` for an unwritable or full place.
    """
    with explained(f"export to {dest}"):
        dest.parent.mkdir(parents=True, exist_ok=True)
        method: Method = "kept"
        if not _is_current(dest, asset):
            if not overwrite:
                _refuse_foreign(dest)
            method = _place(asset, dest, hard_link=hard_link and not asset.private)
        mode = 0o600 if asset.private else 0o644
        line = f"{asset.digest.hex}  {dest.name}\n".encode()
        beside = dest.with_name(dest.name + CHECKSUM_SUFFIX)
        if method != "kept" or not beside.is_file() or beside.read_bytes() != line:
            replace_file(beside, line, mode=mode)
    return Exported(dest, method, asset.digest, asset.size_bytes)


def _is_current(dest: Path, asset: StoredAsset) -> bool:
    """Whether the file there is this asset, untouched since it was exported."""
    try:
        status = dest.lstat()
    except FileNotFoundError:
        return False
    regular = stat.S_ISREG(status.st_mode) and status.st_size == asset.size_bytes
    if asset.private and stat.S_IMODE(status.st_mode) & 0o077:
        return False
    return regular and is_sealed(status, asset.digest)


def _refuse_foreign(dest: Path) -> None:
    if not os.path.lexists(dest):
        return
    if not stat.S_ISREG(dest.lstat().st_mode):
        raise InputError(
            f"{dest} is in the way: it is not a regular file", hint="remove it or choose another"
        )
    recorded = _recorded_digest(dest)
    if recorded is None:
        raise InputError(
            f"{dest} was not written by this program, so it is not overwritten",
            hint="remove it, choose another place, or give --force",
            code="foreign-file",
        )
    if not is_sealed(dest.stat(), recorded) and sparse.hash_file(dest)[0] != recorded:
        raise InputError(
            f"{dest} was changed after it was exported (a machine that ran from it?)",
            hint="move it away to keep it, or give --force to overwrite it",
            code="changed-file",
        )


def _recorded_digest(dest: Path) -> Digest | None:
    """Read the checksum file of an earlier export."""
    try:
        with dest.with_name(dest.name + CHECKSUM_SUFFIX).open("rb") as stream:
            text = stream.read(4096).decode()
        digest_hex, _, name = text.rstrip("\n").partition("  ")
        return Digest.parse(f"sha256:{digest_hex}") if name == dest.name else None
    except (OSError, UnicodeDecodeError, InputError):
        return None


def _remove_leftovers(dest: Path) -> None:
    """Remove what killed exports to the same place left; one that is running holds a lock."""
    for path in dest.parent.glob(f".{glob.escape(dest.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STAGING_GRACE_S and not is_locked(path):
                path.unlink()


def _place(asset: StoredAsset, dest: Path, *, hard_link: bool) -> Method:
    _remove_leftovers(dest)
    temporary = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.part")
    try:
        method = _write(asset, temporary, hard_link=hard_link)
        temporary.replace(dest)
    finally:
        temporary.unlink(missing_ok=True)
    sync_dir(dest.parent)
    return method


def _write(asset: StoredAsset, temporary: Path, *, hard_link: bool) -> Method:
    try:
        source = os.open(asset.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"the store has lost the file of {asset.name}") from None
    try:
        mode = 0o600 if asset.private else 0o644
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            lock_open_file(target)
            if sparse.clone(source, target):
                return _finish(target, asset, "reflink")
            if hard_link and _link_over(asset.path, temporary):
                return "hardlink"
            sparse.copy_sparse(source, target)
            return _finish(target, asset, "copy")
        finally:
            os.close(target)
    finally:
        os.close(source)


def _finish(target: int, asset: StoredAsset, method: Method) -> Method:
    seal(target, asset.digest)
    os.fsync(target)
    return method


def _link_over(source: Path, temporary: Path) -> bool:
    """Replace the empty temporary file by a link to the blob; False where that cannot be done."""
    link = temporary.with_name(temporary.name + "l")
    try:
        os.link(source, link)
    except OSError as error:
        if error.errno in NO_LINK:
            return False
        raise
    link.replace(temporary)
    return True
