"""The application service that joins the steps: plan, obtain, build, store, export.

The only package that puts the steps together. The command line and programs
(``from local_imager import Factory``) both work through :class:`Factory`.
"""

from local_imager.pipeline.factory import Factory
from local_imager.pipeline.lockfile import Lock, LockFile, write_lock
from local_imager.pipeline.locking import LockOrder, make_lock
from local_imager.pipeline.lockread import read_lock
from local_imager.pipeline.values import (
    BuildOrder,
    BuildResult,
    PlannedAsset,
    PlannedImage,
    default_asset,
)

__all__ = [
    "BuildOrder",
    "BuildResult",
    "Factory",
    "Lock",
    "LockFile",
    "LockOrder",
    "PlannedAsset",
    "PlannedImage",
    "default_asset",
    "make_lock",
    "read_lock",
    "write_lock",
]
