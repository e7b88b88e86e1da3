"""The package's own text, which tells where to look."""

from __future__ import annotations

import re
from pathlib import Path

from local_imager.deliver import bundle


def test_every_module_is_named() -> None:
    assert bundle.__doc__ is not None and bundle.__file__ is not None
    named = set(re.findall(r"``([a-z]+)``", bundle.__doc__))
    modules = {path.stem for path in Path(bundle.__file__).parent.glob("*.py")}
    assert named == modules - {"__init__"}
