"""Build Talos Linux images on your own machine, offline, equal to the Image Factory's."""

from __future__ import annotations

__version__ = "0.1.0"
