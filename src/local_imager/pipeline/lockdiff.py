"""What changed between two locks, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from local_imager.pipeline.lockfile import Lock, LockedImage, LockedVersion
from local_imager.profile.model import Role

Kind = Literal[
    "tool",
    "registry",
    "arches",
    "epoch",
    "factory-url",
    "conversion",
    "trusted-root",
    "policy",
    "schematic-added",
    "schematic-removed",
    "schematic-changed",
    "version-added",
    "version-removed",
    "builder",
    "image-added",
    "image-removed",
    "tag",
    "digest",
    "signer",
    "size",
]
# These say how a lock was made; what is built from it does not hang on them.
_CIRCUMSTANCES: Final[frozenset[Kind]] = frozenset({"tool", "trusted-root", "policy"})


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: ``subject`` is what it is about, ``old`` or ``new`` empty when not there."""

    kind: Kind
    subject: str
    old: str = ""
    new: str = ""

    @property
    def matters(self) -> bool:
        """Whether builds from the lock may come out differently."""
        return self.kind not in _CIRCUMSTANCES

    @property
    def text(self) -> str:
        """Say it in words."""
        if not self.old:
            return f"{self.subject}: new" + (f" ({self.new})" if self.new else "")
        if not self.new:
            return f"{self.subject}: gone" + f" (was {self.old})"
        return f"{self.subject}: {self.old} → {self.new}"

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object that ``--json`` prints."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "old": self.old,
            "new": self.new,
            "matters": self.matters,
            "text": self.text,
        }


def changes(old: Lock, new: Lock) -> tuple[Change, ...]:
    """Return every difference of two locks, the whole first, then version by version."""
    return tuple(_changes(old, new))


def _changes(old: Lock, new: Lock) -> Iterator[Change]:
    whole: tuple[tuple[Kind, str, str, str], ...] = (
        ("registry", "registry", old.registry, new.registry),
        ("arches", "architectures", ", ".join(old.arches), ", ".join(new.arches)),
        ("epoch", "epoch of builds", str(old.recipe.epoch), str(new.recipe.epoch)),
        ("factory-url", "factory URL", old.recipe.factory_url, new.recipe.factory_url),
        (
            "conversion",
            "conversion recipe",
            str(old.recipe.conversion),
            str(new.recipe.conversion),
        ),
        ("trusted-root", "trusted root", _joined(old.trusted_roots), _joined(new.trusted_roots)),
        ("policy", "trust policy", _joined(old.policy), _joined(new.policy)),
        ("tool", "made by local-imager", old.tool, new.tool),
    )
    yield from (Change(*row) for row in whole if row[2] != row[3])
    yield from _schematics(old, new)
    olds = {str(entry.version): entry for entry in old.versions}
    news = {str(entry.version): entry for entry in new.versions}
    for name in dict.fromkeys((*olds, *news)):
        before, after = olds.get(name), news.get(name)
        if before is None:
            yield Change("version-added", f"Talos {name}", new=_count(news[name]))
        elif after is None:
            yield Change("version-removed", f"Talos {name}", old=_count(before))
        else:
            yield from _version(name, before, after)


def _joined(texts: Sequence[str]) -> str:
    return ", ".join(sorted(texts)) or "none"


def _count(entry: LockedVersion) -> str:
    return f"{len(entry.images)} images"


def _schematics(old: Lock, new: Lock) -> Iterator[Change]:
    olds, news = set(old.schematics), set(new.schematics)
    gone = {entry.file: entry for entry in sorted(olds - news)}
    for entry in sorted(news - olds):
        before = gone.pop(entry.file, None)
        kind: Kind = "schematic-changed" if before else "schematic-added"
        was = before.schematic_id if before else ""
        yield Change(kind, f"schematic {entry.file}", was, entry.schematic_id)
    for entry in gone.values():
        yield Change("schematic-removed", f"schematic {entry.file}", entry.schematic_id)


def _version(name: str, old: LockedVersion, new: LockedVersion) -> Iterator[Change]:
    if old.builder != new.builder:
        yield Change("builder", f"Talos {name}: builder", str(old.builder), str(new.builder))
    olds = {image.key: image for image in old.images}
    news = {image.key: image for image in new.images}
    added = {key: image for key, image in sorted(news.items()) if key not in olds}
    for key, before in sorted(olds.items()):
        after = news.get(key) or _retagged(before, added)
        subject = f"Talos {name}: {_named(before)}"
        if after is None:
            yield Change("image-removed", subject, str(before.digest))
            continue
        added.pop(after.key, None)
        yield from _image(subject, before, after)
    for image in added.values():
        yield Change("image-added", f"Talos {name}: {_named(image)}", new=str(image.digest))


def _named(image: LockedImage) -> str:
    return f"{image.role} {image.name}:{image.tag}"


def _retagged(
    image: LockedImage, added: Mapping[tuple[Role, str, str], LockedImage]
) -> LockedImage | None:
    """Return the image that came in the place of one that is gone: same role and name."""
    same = (other for other in added.values() if other.key[:2] == image.key[:2])
    return next(same, None)


def _image(subject: str, old: LockedImage, new: LockedImage) -> Iterator[Change]:
    rows: tuple[tuple[Kind, str, str, str], ...] = (
        ("tag", "tag", old.tag, new.tag),
        ("digest", "digest", str(old.digest), str(new.digest)),
        ("signer", "SIGNER", old.signer, new.signer),
    )
    yield from (Change(kind, f"{subject}, {word}", a, b) for kind, word, a, b in rows if a != b)
    # A store knows the sizes only of what was fetched: what one side lacks is no difference.
    for arch in sorted(old.size_bytes.keys() & new.size_bytes.keys()):
        before, after = old.size_bytes[arch], new.size_bytes[arch]
        if before != after:
            sizes = (f"{before} bytes", f"{after} bytes")
            yield Change("size", f"{subject}, {arch}", *sizes)
