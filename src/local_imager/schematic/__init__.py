"""Schematics: reading them strictly, their canonical text and the ID that is its hash."""

from __future__ import annotations
