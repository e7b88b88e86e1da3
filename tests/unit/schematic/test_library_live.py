"""A round of comparison with the factory's YAML library itself.

Runs where Go is installed; the committed answers of the same library are tested everywhere.
"""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

import pytest

from local_imager.errors import SchematicError
from local_imager.schematic.canonical import canonical_text
from local_imager.schematic.parse import parse_schematic
from tests.golden.oracle.cases import CaseMaker
from tests.golden.oracle.library import ask_oracle, build_oracle

CASES = 12_000
# A fixed round, and on a developer's machine one that is new each day.
SEEDS = [7] if os.environ.get("CI") else [7, date.today().toordinal()]


def _ours(data: bytes) -> str | None:
    try:
        return canonical_text(parse_schematic(data))
    except SchematicError:
        return None


if shutil.which("go") is not None:

    @pytest.fixture(scope="module")
    def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return build_oracle(tmp_path_factory.mktemp("oracle"))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_new_cases(oracle: Path, seed: int) -> None:
        maker = CaseMaker(seed)
        cases = [maker.make() for _ in range(CASES // 2)]
        answers = ask_oracle(oracle, [data for _, data in cases])
        wrong = [
            (kind, data, answer.canonical, _ours(data))
            for (kind, data), answer in zip(cases, answers, strict=True)
            if answer.stable and _ours(data) != answer.canonical
        ]
        assert wrong[:3] == []
        assert sum(answer.canonical is not None for answer in answers) > len(cases) // 5
