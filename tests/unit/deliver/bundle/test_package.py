"""The texts of the bundle packages lead a reader to every module."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from local_imager.deliver import bundle

ROOT = Path(bundle.__file__ or "").parent
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


@pytest.mark.parametrize("folder", ["", *FOLDERS])
def test_a_package_names_all_that_it_holds(folder: str) -> None:
    place = ROOT / folder
    module = importlib.import_module(".".join(filter(None, (bundle.__name__, folder))))
    named = set(re.findall(r"``([a-z]+)``", module.__doc__ or ""))
    held = {path.stem for path in place.glob("*.py")} - {"__init__"}
    held |= {path.parent.name for path in place.glob("*/__init__.py")}
    assert held and held - named == set()
