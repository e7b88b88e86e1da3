"""Files that tell the program about the lab: trust policy and settings, keys by relative path."""

from lab.place import NAME_PREFIX, REALISTIC_PREFIX, Place

_TRUST = f"""\
[[trust]]
pattern = "{NAME_PREFIX}/**"
key = "lab.pub"
hash_algorithm = "sha256"
"""


def _settings(registry: str) -> str:
    return f'[upstream]\nregistry = "{registry}"\nsource = "upstream"\n\n{_TRUST}'


def write_settings(place: Place) -> None:
    """Write policy.toml, lab.toml and lab-realistic.toml into the lab's folder."""
    texts = {
        "policy.toml": _TRUST,
        "lab.toml": _settings(NAME_PREFIX),
        "lab-realistic.toml": _settings(REALISTIC_PREFIX),
    }
    for name, text in texts.items():
        temporary = place.root / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(place.root / name)
