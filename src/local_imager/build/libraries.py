"""Which compression libraries our own steps pack with: other versions may give other bytes.

So their versions are a part of the keys of what they pack. Python does not tell the version of
liblzma: that it is the same is a condition that docs/reproducible.md names.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def zstd_version() -> str:
    """Return the version of the zstd library in use, ``zstd 1.5.7``.

    Loads the module, which takes some 5 ms; its metadata would take longer, and name the binding.
    """
    import zstandard

    return f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"


def zlib_version() -> str:
    """Return the version of the zlib library in use, ``zlib 1.2.13``."""
    import zlib

    return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
