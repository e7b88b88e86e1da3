"""Files that tell the program about the lab: trust policy and settings, keys by relative path."""

import shutil
from pathlib import Path

from lab.keyless import IDENTITY_PATTERN, ISSUER
from lab.place import KEYLESS_PREFIX, NAME_PREFIX, REALISTIC_PREFIX, Place

_TRUST = f"""\
[[trust]]
pattern = "{NAME_PREFIX}/**"
key = "lab.pub"
hash_algorithm = "sha256"
"""


def _keyless_trust(trusted_root: Path) -> str:
    return f"""\
[[trust]]
pattern = "{KEYLESS_PREFIX}/**"
issuer = "{ISSUER}"
identity_regexp = '{IDENTITY_PATTERN}'
trusted_root = "{trusted_root.name}"
"""


def _settings(registry: str, trust: str) -> str:
    return f'[upstream]\nregistry = "{registry}"\nsource = "upstream"\n\n{trust}'


def write_settings(place: Place, trusted_root: Path) -> None:
    """Write policy.toml, the settings of each image set, and the trusted root that one names."""
    copy = place.root / f".{place.trusted_root.name}.tmp"
    shutil.copyfile(trusted_root, copy)
    copy.replace(place.trusted_root)
    texts = {
        "policy.toml": _TRUST,
        "lab.toml": _settings(NAME_PREFIX, _TRUST),
        "lab-realistic.toml": _settings(REALISTIC_PREFIX, _TRUST),
        "lab-keyless.toml": _settings(KEYLESS_PREFIX, _keyless_trust(place.trusted_root)),
    }
    for name, text in texts.items():
        temporary = place.root / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(place.root / name)
