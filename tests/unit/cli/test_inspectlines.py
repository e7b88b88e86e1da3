"""The lines of `inspect` about what a short word would get wrong."""

from __future__ import annotations

from local_imager.cli.inspectlines import lines_of
from local_imager.deliver.inspect.inspection import inspect_source
from local_imager.formats.source import BytesSource
from tests.pebytes import pkcs7, plain_hash, sign_pe, signer, with_signatures
from tests.talosfiles import uki


def shown(data: bytes) -> str:
    """Return the lines as one text, its spaces and line ends made one space each."""
    lines = lines_of(inspect_source(BytesSource(data), "file"))
    return " ".join(" ".join(lines).split())


def test_a_signature_that_does_not_fit_is_not_said_to_have_signed() -> None:
    foreign = pkcs7(plain_hash(uki(reset=False)), signer())
    own = pkcs7(plain_hash(uki()), signer("ec"))
    text = shown(with_signatures(uki(), foreign, own))
    assert "signed by CN=test ec; another signature, by CN=test rsa, does not fit" in text
    text = shown(with_signatures(uki(), foreign))
    assert "a signature does not fit what it signs (by CN=test rsa)" in text
    assert "does not fit" not in shown(sign_pe(uki(), signer()))
