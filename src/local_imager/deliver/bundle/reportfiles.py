"""Writing an import report for people: the JSON, the page, and a signature where a key is given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from local_imager.deliver.bundle.page import SizeText, render_page
from local_imager.deliver.bundle.report import ImportReport
from local_imager.deliver.bundle.signing import SIGNATURE_SUFFIX, SigningKey, sign_manifest
from local_imager.oci.durable import explained, replace_file
from local_imager.oci.model import Digest


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
        place = _free_name(folder, f"import-{report.set_digest.short}-{time}")
        replace_file(place, data)
        page = place.with_suffix(".html")
        replace_file(page, render_page(report, size_text))
        signature = None
        if key is not None:
            signature = place.with_name(place.name + SIGNATURE_SUFFIX)
            replace_file(signature, sign_manifest(data, key))
    return ReportFiles(place, page, Digest.of(data), signature)


def _free_name(folder: Path, stem: str) -> Path:
    """Return a name that no other report has, reserved by an empty file."""
    number = 1
    while True:
        place = folder / f"{stem}{f'-{number}' if number > 1 else ''}.json"
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            number += 1
        else:
            return place
