"""Both sides' meaning, row by row, as a page shows them beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local_imager.deliver.compare.verdict import SideSummary
from local_imager.deliver.compare.words import size_text


@dataclass(frozen=True, slots=True)
class Row:
    """One property of both sides, in lines; ``counts`` says that a difference in it is worth
    marking."""

    title: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    counts: bool = True


def side_rows(left: SideSummary, right: SideSummary) -> Iterator[Row]:
    """Yield what is known of the two sides; rows that are empty on both are left out."""
    yield Row("Asked for", (left.asked,), (right.asked,), counts=False)
    first, second = dict(_lines(left)), dict(_lines(right))
    for title in first:
        if first[title] or second[title]:
            yield Row(title, first[title], second[title])


def _lines(side: SideSummary) -> Iterator[tuple[str, tuple[str, ...]]]:
    meaning = side.meaning
    kind = [str(meaning.get("kind") or "")]
    kind += [f"packed as {one}" for one in meaning.get("packing") or ()]
    yield "Kind", _some(*kind)
    for title, key in (
        ("Operating system", "system"),
        ("Talos version", "talos_version"),
        ("Kernel version", "kernel_version"),
        ("Architecture", "arch"),
        ("Platform", "platform"),
        ("Schematic ID", "schematic_id"),
    ):
        yield title, _some(meaning.get(key))
    yield "Extensions", _extensions(meaning)
    yield "Kernel arguments", _some(*(meaning.get("kernel_arguments") or ()))
    meta = meaning.get("meta") or {}
    yield "META", tuple(f"{key}: {value}" for key, value in meta.items())
    yield "Secure Boot", _secure_boot(meaning.get("secure_boot") or {})
    boot = meaning.get("boot") or {}
    ways = {"bios": "BIOS", "uefi": "UEFI"}
    yield "Boots with", tuple(word for key, word in ways.items() if boot.get(key))
    imager = meaning.get("imager") or {}
    yield "Imager", tuple(f"{str(key).replace('_', ' ')}: {value}" for key, value in imager.items())
    yield "Size", (size_text(side.size_bytes),)
    yield "SHA-256", _some(side.digest.removeprefix("sha256:"))


def _some(*values: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in values if value)


def _extensions(meaning: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{one.get('name', '')} {one.get('version', '')}".strip()
        for one in meaning.get("extensions") or ()
    )


def _secure_boot(secure_boot: Mapping[str, Any]) -> tuple[str, ...]:
    state = str(secure_boot.get("state") or "")
    if state in ("", "not-applicable"):
        return ()
    lines = [state.replace("-", " ")]
    lines += [f"by {signer}" for signer in secure_boot.get("signers") or ()]
    if secure_boot.get("pcr_signed"):
        lines.append("PCR policy signed")
    return tuple(lines)
