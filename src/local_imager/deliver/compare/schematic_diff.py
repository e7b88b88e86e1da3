"""Why two schematic IDs differ: what the files show already, and what only the schematics say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from local_imager.deliver.compare.masking import masked_text, shown_diff
from local_imager.deliver.compare.semantic import Semantic, Topic
from local_imager.deliver.compare.words import clean
from local_imager.errors import LocalImagerError

if TYPE_CHECKING:
    from local_imager.schematic.diff import Difference as FieldDifference

_ARGUMENTS: Final = "customization.extraKernelArgs"
_META: Final = "customization.meta"
_EXTENSIONS: Final = "customization.systemExtensions"
_EMBEDDED: Final = "customization.embeddedMachineConfiguration"
_SECURE_BOOT: Final = "customization.secureboot"
# Topics whose differences change the schematic, and so its ID.
_CAUSES: Final[tuple[Topic, ...]] = ("argument", "extension", "meta", "secure-boot", "boot")


def schematic_differences(
    left: Mapping[str, Any], right: Mapping[str, Any], found: Sequence[Semantic]
) -> list[Semantic]:
    """Return the differing ID, and the differing fields that no difference in ``found`` shows.

    The ID follows from what is found; it stands for itself only when nothing explains it.
    """
    ids = clean(str(left.get("schematic_id") or "")), clean(str(right.get("schematic_id") or ""))
    texts = left.get("schematic"), right.get("schematic")
    if ids[0] == ids[1] or not all(ids):
        return []
    words = frozenset({ids[0]}), frozenset({ids[1]})
    fields = _fields(texts, found)
    own = [] if fields is None else [_semantic(field) for field in _merged(fields)]
    cause = _first_cause(found) or ("schematic" if own else None)
    diff = ""
    if all(isinstance(text, str) for text in texts):
        diff = shown_diff(str(texts[0]), str(texts[1]))
    changed = Semantic(
        "schematic", "schematic ID", *ids, key="id", words=words, follows=cause, diff=diff
    )
    return [*own, changed]


def _first_cause(found: Sequence[Semantic]) -> Topic | None:
    own = [one.topic for one in found if one.follows is None]
    return next((topic for topic in _CAUSES if topic in own), None)


def _fields(texts: tuple[Any, Any], found: Sequence[Semantic]) -> list[FieldDifference] | None:
    """Return differing fields that nothing found explains; None when a text is not known."""
    if not all(isinstance(text, str) and text for text in texts):
        return None
    from local_imager.schematic.diff import diff_schematics
    from local_imager.schematic.parse import parse_schematic

    try:
        first, second = (parse_schematic(str(text).encode()) for text in texts)
    except (LocalImagerError, UnicodeEncodeError):
        return None
    open_fields = diff_schematics(first, second, show_secrets=True)
    masked = diff_schematics(first, second)
    shown = [one for one in open_fields if not one.path.startswith(_EMBEDDED)]
    shown += [one for one in masked if one.path.startswith(_EMBEDDED)]
    return [one for one in shown if not _explained(one, found)]


def _explained(field: FieldDifference, found: Sequence[Semantic]) -> bool:
    """Say whether a difference in meaning shows this field's difference already."""
    if field.path == _ARGUMENTS:
        seen = [one for one in found if one.topic == "argument"]
        if field.kind == "reordered":
            return any(one.key == "" for one in seen)
        words = {word for one in seen for side in one.words for word in side}
        return (field.before or field.after) in words
    if field.path.startswith(_META):
        keys = {one.key for one in found if one.topic == "meta"}
        return any(field.path == f"{_META}[{_number(key)}]" for key in keys)
    if field.path.startswith(_EXTENSIONS):
        seen = [one for one in found if one.topic == "extension"]
        name = (field.before or field.after).rpartition("/")[2]
        if field.kind == "reordered":
            return any(one.key == "" for one in seen)
        sides = {(bool(one.left), bool(one.right)) for one in seen if one.key}
        named = any(one.key.rpartition("/")[2] == name for one in seen)
        return named or (bool(field.before), bool(field.after)) in sides
    return field.path.startswith(_SECURE_BOOT) and any(
        one.topic == "secure-boot" and one.key in ("enrols", "enroll_keys") for one in found
    )


def _number(key: str) -> str:
    try:
        return str(int(key, 0))
    except ValueError:
        return key


def _merged(fields: Sequence[FieldDifference]) -> Iterator[tuple[str, str, str]]:
    """Yield (path, before, after); a value removed and one added for one argument are one."""
    waiting: dict[str, list[FieldDifference]] = {}
    for field in fields:
        if field.path == _ARGUMENTS and field.kind == "added":
            waiting.setdefault(field.after.partition("=")[0], []).append(field)
    for field in fields:
        if field.path != _ARGUMENTS or field.kind == "reordered":
            yield field.path, field.before, field.after
        elif field.kind == "removed":
            name = field.before.partition("=")[0]
            pair = waiting.get(name)
            after = pair.pop(0).after if pair else ""
            yield f"{_ARGUMENTS} {name}", field.before, after
    for name, rest in waiting.items():
        for field in rest:
            yield f"{_ARGUMENTS} {name}", "", field.after


def _semantic(row: tuple[str, str, str]) -> Semantic:
    path, before, after = row
    return Semantic(
        "schematic",
        f"schematic field {clean(path, 200)}",
        clean(masked_text(before)),
        clean(masked_text(after)),
        key=path,
    )
