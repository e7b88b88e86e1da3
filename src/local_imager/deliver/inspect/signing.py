"""Secure Boot: what the EFI programs in a file are signed with, and what would be enrolled."""

from __future__ import annotations

from local_imager.deliver.inspect.meaning import SecureBoot
from local_imager.deliver.inspect.parts import Part


def secure_boot_of(tree: Part) -> SecureBoot:
    """Return the state of all EFI programs of a file together."""
    return SecureBoot()
