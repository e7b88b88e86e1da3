"""Which patterns Go's engine refuses, and which are open at both ends."""

from __future__ import annotations

import pytest

from local_imager.errors import SettingsError
from local_imager.sources.expressions import is_open
from local_imager.sources.trust import OFFICIAL_IDENTITY
from local_imager.sources.trust_entries import policy_from_entries

ANCHORED = [
    OFFICIAL_IDENTITY,
    "^a",
    "a$",
    r"\Aa",
    r"a\z",
    "^a|b$",
    "(^a|b$)",
    "(?:^a)(b|c)",
    "(?i)^a$",
    "(?i:^a$)",
    "(?P<name>^a)",
    r"\Q^$\Ea$",
    "[$]^a",
    "^(a|b)?$",
    "a(b$)+",
    "a(b$){1,2}",
]
OPEN = [
    "a",
    ".*",
    "@siderolabs.com",
    "^a|b",
    "a|b$",
    "(^a|b)",
    r"\^a\$",
    "[^a]b",
    "[$]",
    "a[^@]+",
    r"[\]^$]a",
    "[]^$]a",
    "[[:alpha:]^$]a",
    r"\Q^a$\E",
    "(^)?a",
    "^?a",
    "^*a",
    "a(b$)*",
    "a(b$){0,1}",
    "(^a|)b",
    "(?i)a",
]
REFUSED = ["(?=a)", "(?<!a)b", r"(a)\1", "a{1001}", "(", "[z-a]", "*", r"\Z"]


@pytest.mark.parametrize("expression", ANCHORED)
def test_anchored(expression: str) -> None:
    assert not is_open(expression)


@pytest.mark.parametrize("expression", OPEN)
def test_open_at_both_ends(expression: str) -> None:
    assert is_open(expression)
    for key in ("issuer_regexp", "identity_regexp"):
        other = {"issuer": "i"} if key == "identity_regexp" else {"identity": "i"}
        policy = policy_from_entries([{"pattern": "**", key: expression, **other}])
        (warning,) = policy.warnings
        assert "open at both ends" in warning


@pytest.mark.parametrize("expression", REFUSED)
def test_what_gos_engine_refuses_is_refused_at_load(expression: str) -> None:
    for key in ("issuer_regexp", "identity_regexp"):
        other = {"issuer": "i"} if key == "identity_regexp" else {"identity": "i"}
        with pytest.raises(SettingsError) as caught:
            policy_from_entries([{"pattern": "**", key: expression, **other}])
        assert caught.value.exit_code == 2
