"""Where the passphrase of a signing key comes from: the environment, or the person."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click


def passphrase_for(key: Path) -> Callable[[], bytes] | None:
    """Return a function that gives the passphrase of a key; None when nobody can be asked."""
    from local_imager.deliver.bundle.form.signing import KEY_VARIABLE

    given = os.environ.get(KEY_VARIABLE)
    if given is not None:
        return given.encode
    if not sys.stdin.isatty():
        return None
    return lambda: click.prompt(f"Passphrase of {key}", hide_input=True, err=True).encode()
