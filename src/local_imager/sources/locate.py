"""Which image a user means by ``name:tag``, ``name@digest`` or a bare digest, inside a layout.

Trust patterns are about full names, and not every layout holds them. What has no full name is
called :data:`UNNAMED`, which only patterns that cover every name cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from local_imager.errors import InputError, NotFound
from local_imager.events import printable
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.oci.names import is_image, names_of

# ".invalid" belongs to nobody (RFC 2606), so no rule for somebody's images matches it by chance.
UNNAMED: Final = Reference("unnamed.invalid", "image")


def locate(source: LayoutSource, text: str) -> tuple[Reference, Descriptor]:
    """Return the reference and descriptor that the text means in a layout.

    A bare digest takes the name that the layout gives it; a name without registry is looked for
    as it stands in the index. Raises :class:`InputError` for a text that is no name,
    :class:`NotFound` when there is no such image.
    """
    if text.startswith("sha256:") and "/" not in text:
        digest = Digest.parse(text)
        return _by_digest(source, digest)
    try:
        reference = Reference.parse(text)
    except InputError:
        return _by_short_name(source, text)
    if not reference.tag and reference.digest is None:
        raise InputError(
            f"{text[:120]!r} names no tag and no digest",
            hint="write name:tag, name@sha256:… or sha256:…",
        )
    return reference, _present(source, reference)


def _present(source: LayoutSource, reference: Reference) -> Descriptor:
    descriptor = source.resolve(reference)
    # An entry may name a manifest that the layout does not hold: that is a missing image too.
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size_bytes)


def _by_digest(source: LayoutSource, digest: Digest) -> tuple[Reference, Descriptor]:
    named = next((name for name in _full_names(source.entries, digest)), UNNAMED)
    reference = named.with_digest(digest)
    return reference, _present(source, reference)


def _full_names(entries: Sequence[Descriptor], digest: Digest) -> list[Reference]:
    found = []
    for entry in entries:
        if entry.digest == digest and is_image(entry):
            for name in names_of(entry):
                try:
                    reference = Reference.parse(name)
                except InputError:
                    continue
                found.append(Reference(reference.registry, reference.repository, reference.tag))
    return found


def _by_short_name(source: LayoutSource, text: str) -> tuple[Reference, Descriptor]:
    """Find an entry by a name without registry: ``repository:tag``, or the bare tag."""
    short, _, digest_text = text.partition("@")
    found = {
        (name, entry.digest): entry
        for entry in source.entries
        if is_image(entry)
        for name in names_of(entry)
        if name == short or name.endswith("/" + short)
    }
    if digest_text:
        wanted = Digest.parse(digest_text)
        found = {key: entry for key, entry in found.items() if entry.digest == wanted}
    if len({entry.digest for entry in found.values()}) > 1:
        names = ", ".join(sorted(name for name, _ in found)[:5])
        raise InputError(f"{printable(text, limit=120)!r} fits several images: {names}")
    if not found:
        names = ", ".join(sorted({n for e in source.entries if is_image(e) for n in names_of(e)}))
        raise NotFound(
            f"{source.location} has no image {printable(text, limit=120)!r}",
            hint=f"it has: {printable(names, limit=400)}" if names else "write sha256:…",
        )
    (_, entry), *_ = found.items()
    full = _full_names((entry,), entry.digest)
    reference = full[0] if full else UNNAMED
    if digest_text:
        reference = reference.with_digest(entry.digest)
    return reference, Descriptor(entry.media_type, entry.digest, entry.size_bytes)
