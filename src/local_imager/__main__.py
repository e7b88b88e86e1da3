"""``python -m local_imager`` is the command line."""

from __future__ import annotations

from local_imager.cli.main import main

main()
