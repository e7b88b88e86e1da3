"""What the commands share: settings, store, sources and the progress sink, each made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from local_imager.events import EventSink

if TYPE_CHECKING:
    from local_imager.cli.progress import Style
    from local_imager.pipeline import Factory
    from local_imager.settings import Settings
    from local_imager.sources.upstream import Sources
    from local_imager.store.store import Store


@dataclass
class App:
    """The state of one command line call; nothing is opened before a command asks for it."""

    config: str | None = None
    policies: tuple[str, ...] = ()
    flags: dict[str, object] = field(default_factory=dict)
    progress: Style = "auto"
    verbose: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The validated settings; raises :class:`SettingsError`."""
        import os

        from local_imager.settings import load_settings

        config = self.config or os.environ.get("LOCAL_IMAGER_CONFIG") or None
        return load_settings(
            flags=self.flags,
            config=Path(config) if config else None,
            policies=[Path(policy) for policy in self.policies],
        )

    @cached_property
    def sink(self) -> EventSink:
        """The progress sink that suits the terminal and the options."""
        from local_imager.cli.progress import make_sink

        return make_sink(self.progress, verbose=self.verbose)

    def with_flags(self, flags: Mapping[str, object]) -> App:
        """Return an App with more settings flags; None values are "not given"."""
        given = {name: value for name, value in flags.items() if value is not None}
        return replace(self, flags={**self.flags, **given})

    @cached_property
    def factory(self) -> Factory:
        """The application service; opens nothing by itself."""
        from local_imager.pipeline import Factory

        return Factory(self.settings, sink=self.sink)

    def store(self) -> Store:
        """Open (and make, when it is not there) the store of the settings."""
        return self.factory.store

    def sources(self, from_: str | None = None) -> Sources:
        """Return the verified sources; ``from_`` replaces the place that images are read from."""
        if from_ is None:
            return self.factory.sources
        return self.with_flags({"source": from_}).factory.sources
