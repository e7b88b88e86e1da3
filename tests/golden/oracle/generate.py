"""Write ``schematics_oracle.json``: cases of a fixed seed with the Go library's answers."""

from __future__ import annotations

import json
import tempfile
from base64 import b64encode
from collections import Counter
from pathlib import Path

from tests.golden.oracle.cases import CaseMaker
from tests.golden.oracle.library import HERE, ask_oracle, build_oracle

SEED = 20261121
CANDIDATES = 6000
MAX_ACCEPTED_PER_KIND = 40
MAX_REFUSED_PER_KIND = 12
MAX_INPUT_BYTES = 800
TARGET = HERE.parent / "schematics_oracle.json"


def main() -> None:
    """Ask the library and write the rows, the same number of each kind."""
    maker = CaseMaker(SEED)
    cases = [maker.make() for _ in range(CANDIDATES)]
    with tempfile.TemporaryDirectory() as directory:
        program = build_oracle(Path(directory))
        answers = ask_oracle(program, [data for _, data in cases])
    rows = []
    counts: Counter[tuple[str, bool]] = Counter()
    for (kind, data), answer in zip(cases, answers, strict=True):
        refused = answer.canonical is None
        limit = MAX_REFUSED_PER_KIND if refused else MAX_ACCEPTED_PER_KIND
        if not answer.stable or len(data) > MAX_INPUT_BYTES or counts[kind, refused] >= limit:
            continue
        counts[kind, refused] += 1
        outcome = {"refused": True} if refused else {"canonical": answer.canonical}
        rows.append({"kind": kind, "input_base64": b64encode(data).decode(), **outcome})
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    TARGET.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
