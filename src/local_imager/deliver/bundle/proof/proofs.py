"""What ``bundle check`` found: for each asset whether the bundle is enough to build it, or why not.

Values only; ``proof.check`` reads the files, ``proof.proving`` plans the builds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from local_imager.deliver.bundle.form.signing import SignedBy
from local_imager.deliver.bundle.reading.verifying import MissingPart, VerifiedFile
from local_imager.oci.model import Digest

LackKind = Literal[
    "image",  # the bundle has no such image
    "architecture",  # it has the image, for other architectures
    "blobs",  # bytes of it are neither carried nor on the far side
    "refused",  # an import would refuse it
    "lock",  # it is not what the lock in the bundle says
    "builder",  # no imager that can do the work
    "catalogue",  # which image is meant stands in a catalogue that is not there
]


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that a build needs and will not have: ``name`` is an image or a document.

    ``text`` says what is wrong, ``remedy`` what brings it. ``size_bytes`` are the bytes that are
    missing, as far as they are known; ``code`` is the reason of a refusal.
    """

    kind: LackKind
    name: str
    text: str
    remedy: str = ""
    role: str = ""
    size_bytes: int = 0
    code: str = ""

    @property
    def refused(self) -> bool:
        """Whether the policy or the lock says no, so that more bytes would not help."""
        return bool(self.code)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "kind": self.kind,
            "role": self.role,
            "name": self.name,
            "text": self.text,
            "remedy": self.remedy,
            "size_bytes": self.size_bytes,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class ProvenImage:
    """An image that a build needs and that will be there, whole and accepted.

    ``size_bytes`` is all that travels or is there of it, signatures included.
    """

    role: str
    name: str
    digest: Digest
    arches: tuple[str, ...]
    signer: str
    policy: str
    size_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "role": self.role,
            "name": self.name,
            "digest": str(self.digest),
            "arches": list(self.arches),
            "signer": self.signer,
            "policy": self.policy,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class AssetProof:
    """One asset of one schematic and version, built on ``host``; ``schematic`` is a file's name.

    ``size_bytes`` is what its images have together, blobs that they share counted once.
    """

    schematic: str
    schematic_id: str
    version: str
    asset: str
    host: str
    builder: str
    images: tuple[ProvenImage, ...]
    lacks: tuple[Lack, ...]
    size_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the far side can build it."""
        return not self.lacks

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "schematic": self.schematic,
            "schematic_id": self.schematic_id,
            "version": self.version,
            "asset": self.asset,
            "host_arch": self.host,
            "complete": self.complete,
            "builder": self.builder or None,
            "size_bytes": self.size_bytes,
            "images": [image.as_dict() for image in self.images],
            "missing": [lack.as_dict() for lack in self.lacks],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Completeness:
    """The answer about one bundle (or set) for the builds that were asked about.

    ``unvouched`` says why nobody vouches for its assets and documents, empty when ``signed_by``
    does; ``signed`` is whether there was a signature file. ``lock`` is the name of the lock in it
    that the builds are held to. ``since`` is the inventory that a delta was made for, ``far_side``
    the one that was given, None for an empty far side. ``set_digest`` is None when no manifest
    could be read; then there are no proofs either.
    """

    set_digest: Digest | None
    parts: int
    missing_parts: tuple[MissingPart, ...]
    damaged: tuple[VerifiedFile, ...]
    signed_by: SignedBy | None
    unvouched: str
    signed: bool
    since: Digest | None
    far_side: Digest | None
    lock: str
    assets: tuple[AssetProof, ...]
    bytes_read: int
    notes: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every asset can be built from it, and nothing of it is damaged or missing."""
        whole = not self.missing_parts and not self.damaged
        return whole and all(asset.complete for asset in self.assets)

    @property
    def refused(self) -> bool:
        """Whether bytes are damaged, or an image or lock is refused."""
        return bool(self.damaged) or any(lack.refused for lack in self.lacks())

    def lacks(self) -> Iterator[Lack]:
        """Yield what is missing, each once, whatever needs it."""
        yield from dict.fromkeys(lack for asset in self.assets for lack in asset.lacks)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "set": str(self.set_digest) if self.set_digest else None,
            "complete": self.complete,
            "parts": self.parts,
            "missing_parts": [part.as_dict() for part in self.missing_parts],
            "damaged": [file.as_dict() for file in self.damaged],
            "signature": self.signed_by.as_dict() if self.signed_by else None,
            "signed": self.signed,
            "unvouched": self.unvouched,
            "since": str(self.since) if self.since else None,
            "far_side": str(self.far_side) if self.far_side else None,
            "lock": self.lock or None,
            "assets": [asset.as_dict() for asset in self.assets],
            "notes": list(self.notes),
            "bytes_read": self.bytes_read,
        }
