"""Writing an import report for people: the JSON, the page, and a signature where a key is given."""

from __future__ import annotations

import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_imager.deliver.bundle.far.page import SizeText, render_page
from local_imager.deliver.bundle.far.report import ImportReport
from local_imager.deliver.bundle.form.signing import SIGNATURE_SUFFIX, SigningKey, sign_manifest
from local_imager.oci.durable import explained, replace_file, sync_dir
from local_imager.oci.model import Digest

# File systems of USB sticks know one name for each file.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """Where the report of one import is; ``digest`` is that of the JSON, as the page says it."""

    json: Path
    page: Path
    digest: Digest
    signature: Path | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "json": str(self.json),
            "page": str(self.page),
            "sha256": self.digest.hex,
            "signature": str(self.signature) if self.signature else None,
        }


def write_report(
    report: ImportReport, folder: Path, size_text: SizeText, key: SigningKey | None = None
) -> ReportFiles:
    """Write the report beside those of other imports, never over one of them.

    With a key the JSON gets a detached Sigstore bundle. Raises :class:`StoreError`.
    """
    data = report.to_json()
    time = report.time.replace("-", "").replace(":", "")
    with explained(f"write the report to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        place = _put_beside(folder, f"import-{report.set_digest.short}-{time}", data)
        page = place.with_suffix(".html")
        replace_file(page, render_page(report, size_text))
        signature = None
        if key is not None:
            signature = place.with_name(place.name + SIGNATURE_SUFFIX)
            replace_file(signature, sign_manifest(data, key))
    return ReportFiles(place, page, Digest.of(data), signature)


def _put_beside(folder: Path, stem: str, data: bytes) -> Path:
    """Write a file under a name that no other report has; it is there whole or not at all."""
    draft = folder / f".{stem}.{secrets.token_hex(6)}.part"
    replace_file(draft, data)
    try:
        number = 1
        while True:
            place = folder / f"{stem}{f'-{number}' if number > 1 else ''}.json"
            if _named(draft, place):
                sync_dir(folder)
                return place
            number += 1
    finally:
        draft.unlink(missing_ok=True)


def _named(draft: Path, place: Path) -> bool:
    """Give a file a name unless another has it."""
    try:
        os.link(draft, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if place.exists():
            return False
        draft.rename(place)
    return True
