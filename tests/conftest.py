"""Settings of the whole suite."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# One answer for one commit: where a submission is judged, property tests take the same examples
# each time. On a developer's machine they look for new ones.
settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")

# A shell starts what runs in its background with Ctrl-C ignored, and every program that a test
# starts would inherit that; also the one that is to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
