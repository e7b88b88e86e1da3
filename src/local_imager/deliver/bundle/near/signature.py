"""The signature file beside a bundle: made, kept when it is right, never another bundle's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from local_imager.deliver.bundle.near.outfile import growing
from local_imager.errors import InputError
from local_imager.events import EventSink, Message
from local_imager.oci.durable import explained
from local_imager.oci.model import Digest

if TYPE_CHECKING:
    from local_imager.deliver.bundle.form.signing import SigningKey


@dataclass(frozen=True, slots=True)
class SignaturePlan:
    """What becomes of the signature file: it is decided before anything is written."""

    path: Path
    action: Literal["none", "keep", "write", "remove"]
    key: SigningKey | None

    @property
    def signer(self) -> str:
        """The key that will have signed; empty for none, and for a signature that only lies there.

        Who made that one is for the far side's policy to find out.
        """
        return self.key.public.key_id if self.key is not None else ""

    def carry_out(self, manifest: bytes, sink: EventSink) -> Path | None:
        """Write, keep or remove the file; returns where the signature is, None for none."""
        if self.action == "write" and self.key is not None:
            from local_imager.deliver.bundle.form.signing import sign_manifest

            data = sign_manifest(manifest, self.key)
            with growing(self.path, private=False) as file:
                file.write(memoryview(data))
                file.commit()
        if self.action == "remove":
            with explained(f"remove {self.path}"):
                self.path.unlink(missing_ok=True)
            sink.emit(Message(f"{self.path} signed another bundle and is removed", "warning"))
        return self.path if self.action in ("keep", "write") else None


def plan_signature(
    file: Path, manifest: bytes, key: SigningKey | None, *, force: bool
) -> SignaturePlan:
    """Decide about the signature of a bundle whose first file is to be ``file``.

    Raises :class:`InputError` when another signature is there and is not to be replaced.
    """
    from local_imager.deliver.bundle.form.signing import signature_path
    from local_imager.sources.bundle import MAX_BUNDLE_BYTES

    path = signature_path(file)
    with explained(f"read {path}"):
        try:
            with path.open("rb") as stream:
                untrusted_data = stream.read(MAX_BUNDLE_BYTES + 1)
        except FileNotFoundError:
            return SignaturePlan(path, "write" if key else "none", key)
    if _is_of(untrusted_data, manifest, key):
        return SignaturePlan(path, "keep", key)
    if not force:
        raise InputError(
            f"{path} is there already and is not the signature of this bundle"
            + (" by this key" if key else ""),
            hint="choose another name for the bundle, or say --force to replace both",
            code="exists",
        )
    return SignaturePlan(path, "write" if key else "remove", key)


def _is_of(untrusted_data: bytes, manifest: bytes, key: SigningKey | None) -> bool:
    """Whether a file says that it signs this manifest; with a key: whether that key did."""
    from local_imager.sources.bundle import parse_bundle
    from local_imager.sources.reasons import Rejected

    try:
        message = parse_bundle(untrusted_data).message
    except Rejected:
        return False
    if message is None:
        return False
    if key is not None:
        return key.public.verifies(message.signature, manifest)
    return message.digest.hex() == Digest.of(manifest).hex
