"""Opening what the settings name: the verified sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_imager.events import EventSink, Message
from local_imager.settings import Settings
from local_imager.store.store import Store

if TYPE_CHECKING:
    from local_imager.sources.upstream import Sources


def open_sources(
    settings: Settings, store: Store, sink: EventSink, *, offline: bool = False
) -> Sources:
    """Return the sources of the settings under their trust policy; offline is the store alone.

    Raises :class:`SettingsError` for a policy that is not valid, :class:`InputError` or
    :class:`NotFound` for a source that is not there. No connection is made yet.
    """
    from local_imager.oci.open import open_source
    from local_imager.sources.trust_entries import policy_from_settings
    from local_imager.sources.upstream import Sources

    policy = policy_from_settings(settings.trust)
    for warning in policy.warnings:
        sink.emit(Message(warning, "warning"))
    source = None
    if not offline:
        source = open_source(
            settings.source,
            registry=settings.registry,
            plain_http=settings.plain_http,
            mirrors=settings.mirrors,
            timeout_s=settings.answer_timeout_s,
            sink=sink,
        )
    return Sources(store, settings.registry, source, policy, sink, settings.jobs)
