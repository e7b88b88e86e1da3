"""Documents that restate other parts: what in them is a statement, and what just follows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from local_imager.deliver.inspect.parts import Part

# Of a PCR signature (systemd's .pcrsig): the policy's digest and the signature over it follow from
# what is measured; bank, PCRs and the fingerprint of the key are the signer's choice.
_FOLLOWING: Final = frozenset({"pol", "sig"})
_MAX_CHARS: Final = 64 * 1024
# Of an OVA (DSP0243, 5.1 and 7.1): a manifest's lines, and what a description says of a file.
_DIGEST_OF: Final = re.compile(r"^SHA256\(([^()\n]{1,255})\)= ([0-9a-f]{64})$", re.MULTILINE)
_SIZE_OF: Final = re.compile(
    r'(<File ovf:href="([^"<>\n]{1,255})"[^<>\n]{0,255} ovf:size=")(\d{1,20})(")'
)


def same_but_signed_values(left: str, right: str) -> bool:
    """Say whether two ``.pcrsig`` documents differ in policy digests and signatures only.

    Keys, banks, PCRs and their order have to be equal; what is no such document is never the same.
    """
    if max(len(left), len(right)) > _MAX_CHARS:
        return False
    try:
        first, second = _statement(json.loads(left)), _statement(json.loads(right))
    except (ValueError, RecursionError):
        return False
    return bool(first) and first == second


def _statement(document: Any) -> list[tuple[str, list[str]]]:
    """Return bank -> what the signer chose for each of its policies."""
    if not isinstance(document, dict):
        raise ValueError("a .pcrsig document is an object")
    banks = []
    for bank, policies in document.items():
        if not isinstance(policies, list) or not all(isinstance(one, dict) for one in policies):
            raise ValueError("a bank holds a list of policies")
        chosen = [
            json.dumps({key: one[key] for key in sorted(one) if key not in _FOLLOWING})
            for one in policies
        ]
        banks.append((str(bank), chosen))
    return banks


def same_but_members(
    left: str, right: str, members: tuple[Mapping[str, Part], Mapping[str, Part]]
) -> bool:
    """Say whether two manifests or descriptions of OVAs differ in digests and sizes of the other
    files only, and both say them as they are.

    ``members`` are the files of either OVA by name.
    """
    if max(len(left), len(right)) > _MAX_CHARS:
        return False
    first, second = (
        _without_members(text, side) for text, side in zip((left, right), members, strict=True)
    )
    return first == second


def _without_members(text: str, members: Mapping[str, Part]) -> str:
    """Return a text without what it says rightly of other files."""

    def digest(match: re.Match[str]) -> str:
        part = members.get(match[1])
        is_right = part is not None and part.digest == f"sha256:{match[2]}"
        return f"SHA256({match[1]})= <digest>" if is_right else match[0]

    def size(match: re.Match[str]) -> str:
        part = members.get(match[2])
        is_right = part is not None and str(part.size_bytes) == match[3]
        return f"{match[1]}<size>{match[4]}" if is_right else match[0]

    return _SIZE_OF.sub(size, _DIGEST_OF.sub(digest, text))


def same_but_restated(left: str, right: str) -> bool:
    """Say whether two image configurations differ in times of making and layer digests only.

    Both are compared as facts and parts of the image; everything else has to be equal.
    """
    if max(len(left), len(right)) > _MAX_CHARS:
        return False
    try:
        first, second = _stated(json.loads(left)), _stated(json.loads(right))
    except (ValueError, RecursionError):
        return False
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _stated(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError("an image configuration is an object")
    kept = {key: value for key, value in document.items() if key != "created"}
    layers = kept.get("rootfs")
    if isinstance(layers, dict):
        digests = layers.get("diff_ids")
        count = len(digests) if isinstance(digests, list) else -1
        kept["rootfs"] = {**layers, "diff_ids": count}
    history = kept.get("history")
    if isinstance(history, list) and all(isinstance(one, dict) for one in history):
        kept["history"] = [{k: v for k, v in one.items() if k != "created"} for one in history]
    return kept
