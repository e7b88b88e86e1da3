"""How the entries of a layout's ``index.json`` are matched with image names.

Tools disagree on what ``org.opencontainers.image.ref.name`` holds: the full name (this program,
docker, podman), only the tag (skopeo, crane, oras, umoci), or nothing (crane append, cosign save).
A full name is always preferred; a bare tag or no name is accepted where it cannot be confused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from local_imager.oci.model import Descriptor, Digest, Reference

ANNOTATION_CONTAINERD_NAME: Final = "io.containerd.image.name"
# cosign save: what an unnamed entry is.
ANNOTATION_KIND: Final = "kind"
KIND_PREFIX: Final = "dev.cosignproject.cosign/"
_IMAGE_KINDS: Final = frozenset({"", KIND_PREFIX + "image", KIND_PREFIX + "imageIndex"})
_KIND_OF_SUFFIX: Final = {"sig": "sigs", "att": "atts", "sbom": "sboms"}
_FALLBACK: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\.([a-z0-9]+))?")


def fallback_tag(digest: Digest) -> str:
    """Return the tag under which referrers of a digest are listed (distribution-spec 1.1)."""
    return f"sha256-{digest.hex}"


def attached_to(ref_name: str) -> tuple[Digest, str] | None:
    """Read a name that ends in ``sha256-<hex>`` or ``sha256-<hex>.<suffix>``.

    Return the digest that the entry belongs to and the suffix (``sig``, ``att``, empty for a
    referrers list), or None for an ordinary name.
    """
    if "sha256-" not in ref_name:  # nearly all, asked of every entry again and again
        return None
    match = _FALLBACK.fullmatch(re.split(r"[:/@]", ref_name)[-1])
    return (Digest(match[1]), match[2] or "") if match else None


def names_of(entry: Descriptor) -> Iterator[str]:
    """Yield the names that an entry carries, the standard one first."""
    for name in (entry.ref_name, entry.annotations.get(ANNOTATION_CONTAINERD_NAME, "")):
        if name:
            yield name


def is_image(entry: Descriptor) -> bool:
    """Return whether an entry can be an image that a user names (not a signature or artifact)."""
    return (
        entry.annotations.get(ANNOTATION_KIND, "") in _IMAGE_KINDS
        and entry.artifact_type in ("", "application/vnd.oci.image.config.v1+json")
        and attached_to(entry.ref_name) is None
    )


def spellings(reference: Reference) -> tuple[str, ...]:
    """Return the names that ``registry/repository:tag`` may have in a layout, the best first."""
    tag = reference.tag
    return f"{reference.name}:{tag}", f"{reference.repository}:{tag}", tag


def find_named(entries: Sequence[Descriptor], reference: Reference) -> Descriptor | None:
    """Return the entry that has a name of the reference; the last of the best name."""
    for wanted in spellings(reference):
        for entry in reversed(entries):
            if wanted in names_of(entry):
                return entry
    return None


def find_unnamed(
    entries: Sequence[Descriptor],
    images: Callable[[], Sequence[Descriptor]],
    reference: Reference,
) -> Descriptor | None:
    """Return the entry that a reference means where no entry has its name.

    ``images`` gives all images of the layout, ``entries`` are at least all that say their kind.
    """
    attached = attached_to(reference.tag)
    if attached is None:
        return images()[0] if len(images()) == 1 and not any(names_of(images()[0])) else None
    # What cosign save put beside its one image in place of the tag ``sha256-….sig``.
    digest, suffix = attached
    kind = KIND_PREFIX + _KIND_OF_SUFFIX.get(suffix, "")
    found = [e for e in entries if e.annotations.get(ANNOTATION_KIND) == kind]
    if len(found) == 1 and len(images()) == 1 and images()[0].digest == digest:
        return found[0]
    return None


def find_referrers_list(
    entries: Sequence[Descriptor], digest: Digest, repository_name: str = ""
) -> Descriptor | None:
    """Return the referrers index of a digest: the one of this repository first, then any."""
    tag = fallback_tag(digest)
    named = [e for e in entries if attached_to(e.ref_name) == (digest, "")]
    for wanted in (f"{repository_name}:{tag}", tag):
        for entry in named:
            if entry.ref_name == wanted:
                return entry
    return named[0] if named else None


def tags_of(entries: Iterable[Descriptor], reference: Reference) -> tuple[str, ...]:
    """Return the tags that a layout lists for a repository, bare tags included, each once."""
    tags: dict[str, None] = {}
    for entry in entries:
        for name in names_of(entry):
            head, colon, tag = name.rpartition(":")
            if not colon and "/" not in name and "@" not in name:
                tags[name] = None
            elif head in (reference.name, reference.repository) and "/" not in tag:
                tags[tag] = None
    return tuple(tags)
