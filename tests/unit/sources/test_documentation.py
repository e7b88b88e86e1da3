"""The page on verification says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from local_imager.sources.reasons import Reason
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.trust_entries import policy_from_entries
from tests.unit.sources.forge import Signing

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "verification.md").read_text()


def test_every_reason_code_is_in_the_table_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows == {reason.code: reason.meaning for reason in Reason}


def test_the_modules_and_tests_named_there_exist() -> None:
    for code, tests in re.findall(
        r"^\| [^|`]+(?:`[^|]*)?\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE
    ):
        for name in re.findall(r"`([a-z_]+)`", code):
            assert (ROOT / "src" / "local_imager" / "sources" / f"{name}.py").is_file(), name
        for name in re.findall(r"`(test_[a-z_]+)`", tests):
            assert (Path(__file__).with_name(f"{name}.py")).is_file(), name


def test_the_example_policy_is_valid(tmp_path: Path) -> None:
    import tomllib

    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for name in ("team.pub", "bundles.pub"):
        (tmp_path / name).write_text(Signing().pem)
    entries = tomllib.loads(example)["trust"]
    policy: TrustPolicy = policy_from_entries(entries, base_dir=tmp_path)
    assert len(policy.rules) == 4
    assert len(policy.bundle_groups()[0]) == 1
