"""Either side of a comparison, brought here by what the user wrote.

A side is a file that lies ready to be read: a path, an asset of the store, a file of a factory, or
an image of a registry. What came from elsewhere is kept as a foreign file and is never trusted.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from local_imager.deliver.compare.address import PREFIX, FactoryAsset, factory_address
from local_imager.errors import InputError, NotFound, StoreError
from local_imager.events import NULL_SINK, EventSink
from local_imager.oci.host import host_arch
from local_imager.oci.model import Reference

if TYPE_CHECKING:
    from local_imager.deliver.compare.factory import FactoryClient
    from local_imager.settings import Settings
    from local_imager.store.foreign import ForeignFile
    from local_imager.store.records import StoredAsset
    from local_imager.store.store import Store

SideKind = Literal["file", "asset", "foreign", "factory", "image"]
UNVERIFIED: Final = "unverified: nobody vouches for these bytes"
_FILE_URL: Final = re.compile(
    r"(https?://[^\s?#]+)/image/([0-9a-f]{64}/v[0-9A-Za-z.-]+/[0-9A-Za-z.-]+)"
)
_FORMS: Final = (
    "give a file, an asset as `store ls` shows it, factory:ID/VERSION/ASSET, "
    "or an image with its tag or digest"
)


@dataclass(frozen=True, slots=True)
class Side:
    """One side, ready to be read.

    ``asked`` is what the user wrote, ``name`` what the file is called, ``trust`` a sentence about
    who vouches for the bytes (empty for the user's own files and assets). ``stored`` is the asset
    when it is one of the store: what results are attached to.
    """

    asked: str
    kind: SideKind
    name: str
    path: Path
    trust: str = ""
    origin: str = ""
    stored: StoredAsset | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of the side (docs/compare.md)."""
        return {
            "asked": self.asked,
            "kind": self.kind,
            "name": self.name,
            "trust": self.trust,
            "origin": self.origin,
        }


@dataclass
class SideContext:
    """What sides are opened with: the store and settings, opened when a side needs them.

    ``factory`` is the address of the factory that ``factory:`` means; empty is that of the
    settings. ``arch`` chooses from an image of several architectures. ``refetch`` asks the factory
    for what was fetched before, ``offline`` asks nobody.
    """

    settings: Settings
    open_store: Callable[[], Store]
    sink: EventSink = NULL_SINK
    factory: str = ""
    arch: str = ""
    refetch: bool = False
    offline: bool = False
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @cached_property
    def store(self) -> Store:
        """The store."""
        return self.open_store()

    @cached_property
    def client(self) -> FactoryClient:
        """The factory; no connection is made yet. Raises :class:`InputError`."""
        from local_imager.deliver.compare.factory import PATIENCE_S, FactoryClient

        url = factory_address(
            self.factory or self.settings.factory_url, plain_http=self.settings.plain_http
        )
        stall_s = self.settings.answer_timeout_s
        patience_s = max(PATIENCE_S, stall_s)
        return FactoryClient(
            url, sink=self.sink, timeout_s=patience_s, stall_s=stall_s, sleep=self.sleep
        )


def open_side(text: str, context: SideContext) -> Side:
    """Return the side that a text means, fetched if need be.

    In this order: ``factory:…``; an existing path; an asset or foreign file of the store (as
    ``store show`` names it; ``store:NAME`` looks nowhere else); an image reference with a tag or
    digest. Raises :class:`InputError` for what fits none of them, with the nearest names, and
    whatever fetching raises.
    """
    if text.startswith(PREFIX):
        return _of_factory(text, context)
    if text.startswith("store:"):
        found = _in_store(text.removeprefix("store:"), text, context)
        if found is None:
            raise _nothing_fits(text, context)
        return found
    if os.path.lexists(text):
        return _of_file(text)
    found = _in_store(text, text, context)
    if found is not None:
        return found
    reference = _reference(text)
    if reference is None:
        raise _nothing_fits(text, context)
    return _of_image(text, reference, context)


def _of_file(text: str) -> Side:
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{text}: {error.strerror}", code="not-found") from error
    if stat.S_ISDIR(mode):
        inside = "; for all files in it: compare --build … --against DIR"
        raise InputError(f"{text} is a directory", hint=f"name a file in it{inside}")
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{text} is no regular file", hint="copy what it holds into a file, then compare that"
        )
    return Side(text, "file", path.name, path)


def _in_store(name: str, asked: str, context: SideContext) -> Side | None:
    """Return the asset, else the foreign file, that a name means; several raise InputError."""
    from local_imager.store.foreign import find_foreign

    try:
        asset = context.store.show(name)
    except NotFound:
        foreign = find_foreign(context.store.layout, name)
        return None if foreign is None else of_foreign(asked, "foreign", foreign)
    if not context.store.layout.intact(asset.digest, asset.size_bytes):
        raise StoreError(
            f"{asset.asset} in the store does not have the bytes of its digest any more",
            hint="somebody wrote into it or an exported link; `local-imager store fsck --repair` "
            "removes it, then build it again",
        )
    return of_asset(asked, asset)


def of_asset(asked: str, asset: StoredAsset) -> Side:
    """Return an asset of the store as a side."""
    return Side(asked, "asset", asset.asset, asset.path, "", asset.name, asset)


def of_foreign(asked: str, kind: SideKind, foreign: ForeignFile, trust: str = UNVERIFIED) -> Side:
    """Return a foreign file of the store as a side."""
    return Side(asked, kind, foreign.title, foreign.path, trust, foreign.origin)


def _of_factory(text: str, context: SideContext) -> Side:
    wanted = FactoryAsset.parse(text)
    got = context.client.fetch(
        context.store, wanted, refetch=context.refetch, offline=context.offline
    )
    return of_foreign(text, "factory", got)


def _reference(text: str) -> Reference | None:
    """Read an image's name; without tag or digest it is taken for a mistyped path."""
    try:
        reference = Reference.parse(text)
    except InputError:
        return None
    folder = text.partition("/")[0]
    return reference if (reference.tag or reference.digest) and not Path(folder).is_dir() else None


def _of_image(text: str, reference: Reference, context: SideContext) -> Side:
    from local_imager.deliver.compare.registryimage import fetch_image

    foreign, trust = fetch_image(
        reference,
        context.store,
        context.settings,
        arch=context.arch or host_arch(),
        sink=context.sink,
        offline=context.offline,
    )
    return of_foreign(text, "image", foreign, trust)


def _nothing_fits(text: str, context: SideContext) -> InputError:
    address = _FILE_URL.fullmatch(text)
    if address:
        return InputError(
            f"{text[:200]!r} is a web address, which is no side",
            hint=f"write factory:{address[2]} --factory {address[1]}",
            code="no-side",
        )
    near = _near_files(text) or _near_assets(text, context)
    hint = f"did you mean {', '.join(near)}?" if near else _FORMS
    return InputError(
        f"{text[:200]!r} is no file, no asset of the store and no image", hint=hint, code="no-side"
    )


def _near_files(text: str) -> list[str]:
    """Return files beside the one named, with nearly its name."""
    path = Path(text)
    try:
        names = sorted(os.listdir(path.parent))[:10_000]
    except (OSError, ValueError):
        return []
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.75)
    return [str(path.with_name(name)) for name in close]


def _near_assets(text: str, context: SideContext) -> list[str]:
    wanted = text.removeprefix("store:")
    known = {
        f"{asset.schematic_id[:12]}/{asset.version}/{asset.asset}": asset
        for asset in context.store.assets()[:5_000]
    }
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.75)
    if not close:
        close = [name for name in known if name.endswith("/" + wanted)][:3]
    return close
