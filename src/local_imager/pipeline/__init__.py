"""The application service that joins the steps: plan, obtain, build, store, export.

The only package that puts the steps together. The command line and programs
(``from local_imager import Factory``) both work through :class:`Factory`. A name is imported when
it is first used: most builds are found in the store and need but a part of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_imager.pipeline.factory import Factory as Factory
    from local_imager.pipeline.lockfile import Lock as Lock
    from local_imager.pipeline.lockfile import LockFile as LockFile
    from local_imager.pipeline.lockfile import write_lock as write_lock
    from local_imager.pipeline.locking import LockOrder as LockOrder
    from local_imager.pipeline.locking import make_lock as make_lock
    from local_imager.pipeline.lockread import read_lock as read_lock
    from local_imager.pipeline.values import BuildOrder as BuildOrder
    from local_imager.pipeline.values import BuildResult as BuildResult
    from local_imager.pipeline.values import PlannedAsset as PlannedAsset
    from local_imager.pipeline.values import PlannedImage as PlannedImage
    from local_imager.pipeline.values import default_asset as default_asset

_HOME_OF = {
    "BuildOrder": "values",
    "BuildResult": "values",
    "Factory": "factory",
    "Lock": "lockfile",
    "LockFile": "lockfile",
    "LockOrder": "locking",
    "PlannedAsset": "values",
    "PlannedImage": "values",
    "default_asset": "values",
    "make_lock": "locking",
    "read_lock": "lockread",
    "write_lock": "lockfile",
}
__all__ = [*sorted(_HOME_OF)]


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it."""
    from importlib import import_module

    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
