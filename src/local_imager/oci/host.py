"""What this machine is, in the words of the image specification."""

from __future__ import annotations

import os
from typing import Literal


def host_arch() -> Literal["amd64", "arm64"]:
    """Return this machine's architecture as image platforms spell it; amd64 when it is neither."""
    return "arm64" if os.uname().machine in ("aarch64", "arm64") else "amd64"
