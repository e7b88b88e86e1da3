"""Build Talos Linux images on your own machine, offline, equal to the Image Factory's.

The public API; each name is imported when it is first used::

    from local_imager import BuildOrder, Factory, load_settings, read_schematic

    factory = Factory(load_settings())
    order = BuildOrder(read_schematic("schematic.yaml"), "v1.13.0", ("metal-amd64.iso",))
    for result in factory.build(order):
        use(result.digest, result.manifest_digest)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from local_imager.errors import LocalImagerError as LocalImagerError
    from local_imager.events import EventSink as EventSink
    from local_imager.events import RecordingSink as RecordingSink
    from local_imager.pipeline import BuildOrder as BuildOrder
    from local_imager.pipeline import BuildResult as BuildResult
    from local_imager.pipeline import Factory as Factory
    from local_imager.profile.assetname import AssetName as AssetName
    from local_imager.profile.version import TalosVersion as TalosVersion
    from local_imager.schematic.canonical import canonical_text as canonical_text
    from local_imager.schematic.canonical import schematic_id as schematic_id
    from local_imager.schematic.model import Schematic as Schematic
    from local_imager.schematic.parse import parse_schematic as parse_schematic
    from local_imager.schematic.parse import read_schematic as read_schematic
    from local_imager.settings import Settings as Settings
    from local_imager.settings import load_settings as load_settings
    from local_imager.store.store import Store as Store

_HOME_OF = {
    "AssetName": "profile.assetname",
    "BuildOrder": "pipeline",
    "BuildResult": "pipeline",
    "EventSink": "events",
    "Factory": "pipeline",
    "LocalImagerError": "errors",
    "RecordingSink": "events",
    "Schematic": "schematic.model",
    "Settings": "settings",
    "Store": "store.store",
    "TalosVersion": "profile.version",
    "canonical_text": "schematic.canonical",
    "load_settings": "settings",
    "parse_schematic": "schematic.parse",
    "read_schematic": "schematic.parse",
    "schematic_id": "schematic.canonical",
}
__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it."""
    from importlib import import_module

    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
