"""What a report leaves out: machine configurations, which hold the keys of a whole cluster.

A report is read by more people than the files it is about. So it never shows an embedded machine
configuration; digests and sizes say that it differs. Kernel arguments and META values are shown,
since a comparison is about them; a page with such values is written for its owner alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from local_imager.deliver.compare.words import text_diff
from local_imager.errors import LocalImagerError

_EMBEDDED: Final = "embeddedMachineConfiguration"
# The only top-level keys of Talos' v1alpha1 document, which is where tokens and keys stand.
_CONFIGURATION: Final = re.compile(
    r"(?:^|[{,])\s*[\"']?(?:machine|cluster)[\"']?\s*:", re.MULTILINE
)
_MAY_BE_SECRET: Final = (_EMBEDDED, "extraKernelArgs", "meta")
NOT_SHOWN: Final = "(not shown: it holds a machine configuration)"


def holds_configuration(text: str) -> bool:
    """Say whether a text is, or has within, a machine configuration of Talos."""
    return _EMBEDDED in text or _CONFIGURATION.search(text) is not None


def masked_text(text: str) -> str:
    """Return the text, or a remark in the place of one that holds a machine configuration."""
    return NOT_SHOWN if holds_configuration(text) else text


def shown_diff(left: str, right: str) -> str:
    """Return the diff of two texts, or the remark where either holds a machine configuration."""
    if holds_configuration(left) or holds_configuration(right):
        return NOT_SHOWN if left != right else ""
    return text_diff(left, right)


def masked_meaning(meaning: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what inspection says of a side without machine configurations."""
    text, meta = meaning.get("schematic"), meaning.get("meta") or {}
    shown = dict(meaning)
    if isinstance(text, str) and holds_configuration(text):
        shown["schematic"] = _masked_schematic(text)
    if any(holds_configuration(str(value)) for value in meta.values()):
        shown["meta"] = {key: masked_text(str(value)) for key, value in meta.items()}
    return shown


def shows_secrets(meaning: Mapping[str, Any]) -> bool:
    """Say whether a report on this side shows what may be secret, as the store sees its assets:
    kernel arguments and META values of a schematic, and what came with a configuration."""
    text = meaning.get("schematic")
    listed = isinstance(text, str) and any(f"{name}:" in text for name in _MAY_BE_SECRET)
    return listed or text == NOT_SHOWN or bool(meaning.get("meta"))


def _masked_schematic(text: str) -> str:
    """Return the schematic with one line in place of the configuration; none of an odd text."""
    from dataclasses import replace

    from local_imager.schematic.canonical import canonical_text
    from local_imager.schematic.parse import parse_schematic

    try:
        schematic = parse_schematic(text.encode())
        custom = replace(schematic.customization, embedded_machine_configuration=NOT_SHOWN)
        shown = canonical_text(replace(schematic, customization=custom))
    except (LocalImagerError, UnicodeEncodeError):
        return NOT_SHOWN
    return shown if not _CONFIGURATION.search(shown) else NOT_SHOWN
