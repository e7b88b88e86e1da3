"""Settings of the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

# One answer for one commit: where a submission is judged, property tests take the same examples
# each time. On a developer's machine they look for new ones.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")
