"""Words that both sides of a bundle use: roles of documents, and names as people read them."""

from __future__ import annotations

import re
from typing import Final

from local_imager.store.records import ASSET_PREFIX

ROLE_LOCK: Final = "lock"
ROLE_SCHEMATIC: Final = "schematic"
ROLE_POLICY: Final = "policy"
ROLE_KEY: Final = "key"
# The root in force where no rule names one; others are what a rule of the policy names.
ROLE_ROOT: Final = "trusted-root"
ROLE_ROOT_OF_RULE: Final = "trusted-root-of-rule"
# Every store writes these lists anew, so a difference in one says nothing of the image.
LIST_PURPOSE: Final = "list of referrers of "


def short_name(name: str) -> str:
    """Return an item's name for people, with the begin of an asset's schematic or a digest."""
    if not name.startswith(ASSET_PREFIX):
        return re.sub(r"@sha256:([0-9a-f]{12})[0-9a-f]{52}$", r"@\1", name)
    schematic, _, rest = name.removeprefix(ASSET_PREFIX).partition("/")
    return f"{schematic[:12]}/{rest}"


def short_signer(signer: str) -> str:
    """Return who signed for people: a key by the begin of its ID, an identity as it is."""
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", signer)
