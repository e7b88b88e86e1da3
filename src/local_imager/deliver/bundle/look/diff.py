"""What two bundles differ in, in plain words, and what a far side lacks of one of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from local_imager.deliver.bundle.form.model import Blob, Bundle, Item, Kind
from local_imager.deliver.bundle.form.words import LIST_PURPOSE, short_name
from local_imager.deliver.bundle.look.view import Amount, needed_blobs
from local_imager.oci.model import Digest

Aspect = Literal["item", "digest", "signer", "arches", "roles", "contents", "size", "facts", "form"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference from bundle A to bundle B: ``old`` or ``new`` is empty where there is none.

    ``subject`` is what it is about, ``kind`` what sort of thing that is (``bundle``: the whole).
    """

    aspect: Aspect
    kind: Kind | Literal["bundle"]
    subject: str
    old: str = ""
    new: str = ""

    @property
    def text(self) -> str:
        """Say it in words."""
        what = self.subject if self.kind == "bundle" else f"{self.kind} {short_name(self.subject)}"
        if self.aspect == "item":
            state = "new" if self.new else "gone"
            return f"{what}: {state} ({_shortened(self.new or self.old)})"
        word = "" if self.kind == "bundle" else f", {_WORDS.get(self.aspect, self.aspect)}"
        before, after = (_shortened(value) or "none" for value in (self.old, self.new))
        return f"{what}{word}: {before} → {after}"

    def as_dict(self) -> dict[str, str]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "aspect": self.aspect,
            "kind": self.kind,
            "subject": self.subject,
            "old": self.old,
            "new": self.new,
            "text": self.text,
        }


_WORDS: Mapping[Aspect, str] = {"signer": "SIGNER", "arches": "architectures", "contents": "blobs"}


@dataclass(frozen=True, slots=True)
class Lack:
    """What of one item is not there: ``missing`` of the ``needed`` blobs."""

    item: Item
    needed: Amount
    missing: Amount

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "kind": self.item.kind,
            "name": self.item.name,
            "needed": self.needed.as_dict(),
            "missing": self.missing.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Lacking:
    """What of a bundle somebody lacks who has other blobs; ``items`` are those not complete.

    The totals count each blob once, the items count every blob that they need.
    """

    needed: Amount
    missing: Amount
    items: tuple[Lack, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "needed": self.needed.as_dict(),
            "missing": self.missing.as_dict(),
            "items": [lack.as_dict() for lack in self.items],
        }


def differences(old: Bundle, new: Bundle) -> tuple[Difference, ...]:
    """Return every difference of what two bundles bring, then of how they travel."""
    return tuple(_differences(old, new))


def lacking(bundle: Bundle, had: Container[Digest]) -> Lacking:
    """Return what of a bundle's content is not among the blobs that somebody has.

    The content is what an import leaves, whether it travels in this bundle or is presumed there.
    """
    return _lacking(bundle.items, needed_blobs(bundle), had)


def far_side_lacks(bundle: Bundle, had: Container[Digest]) -> Lacking:
    """Return which images and assets a far side lacks whose inventory lists these blobs.

    Documents are left out, since no store keeps them, and so are lists of referrers, which each
    store writes anew.
    """
    items = [item for item in bundle.items if item.kind != "document"]
    named = {digest for item in items for digest in item.blobs}
    needed = {
        digest: blob
        for digest, blob in needed_blobs(bundle).items()
        if digest in named and not blob.purpose.startswith(LIST_PURPOSE)
    }
    return _lacking(items, needed, had)


def _lacking(
    items: Iterable[Item], needed: Mapping[Digest, Blob], had: Container[Digest]
) -> Lacking:
    missing = {digest: blob for digest, blob in needed.items() if digest not in had}
    lacks = []
    for item in items:
        gone = [missing[digest] for digest in item.blobs if digest in missing]
        if gone:
            whole = Amount.of(needed[digest] for digest in item.blobs if digest in needed)
            lacks.append(Lack(item, whole, Amount.of(gone)))
    return Lacking(Amount.of(needed.values()), Amount.of(missing.values()), tuple(lacks))


def _differences(old: Bundle, new: Bundle) -> Iterator[Difference]:
    olds = {(item.kind, item.name): item for item in old.items}
    news = {(item.kind, item.name): item for item in new.items}
    for key in dict.fromkeys((*olds, *news)):
        before, after = olds.get(key), news.get(key)
        if before is None:
            yield Difference("item", *key, new=str(news[key].descriptor.digest))
        elif after is None:
            yield Difference("item", *key, old=str(before.descriptor.digest))
        else:
            yield from _item(before, after, old, new)
    for name in sorted(old.facts.keys() | new.facts.keys()):
        values = (", ".join(facts.get(name, ())) for facts in (old.facts, new.facts))
        yield from _unequal("facts", "bundle", name, *values)
    forms = (_form(old), _form(new))
    for name, was in forms[0].items():
        yield from _unequal("form", "bundle", name, was, forms[1][name])


def _item(old: Item, new: Item, in_old: Bundle, in_new: Bundle) -> Iterator[Difference]:
    kind, name = new.kind, new.name
    digests = str(old.descriptor.digest), str(new.descriptor.digest)
    yield from _unequal("digest", kind, name, *digests)
    yield from _unequal("signer", kind, name, old.signer, new.signer)
    yield from _unequal("arches", kind, name, ", ".join(old.arches), ", ".join(new.arches))
    yield from _unequal("roles", kind, name, ", ".join(old.roles), ", ".join(new.roles))
    gone, added = frozenset(old.blobs) - frozenset(new.blobs), set(new.blobs) - set(old.blobs)
    if digests[0] == digests[1] and (gone or added):
        # The image is the same, so this is what is attached to it, or another architecture of it.
        yield Difference("contents", kind, name, f"{len(gone)} gone", f"{len(added)} new")
    elif gone or added:
        sizes = (_size(in_old, old), _size(in_new, new))
        yield from _unequal("size", kind, name, *(f"{size} bytes" for size in sizes))


def _size(bundle: Bundle, item: Item) -> int:
    return sum(bundle.by_digest[digest].size_bytes for digest in item.blobs)


def _form(bundle: Bundle) -> dict[str, str]:
    """Return how a bundle travels, which is no matter of what it brings."""
    return {
        "parts": str(len(bundle.parts)),
        "leans on the inventory": str(bundle.since) if bundle.since else "",
    }


def _unequal(
    aspect: Aspect, kind: Kind | Literal["bundle"], subject: str, old: str, new: str
) -> Iterator[Difference]:
    if old != new:
        yield Difference(aspect, kind, subject, old, new)


def _shortened(value: str) -> str:
    """Cut a digest to the digits that people compare."""
    return value[:19] if value.startswith("sha256:") else value
