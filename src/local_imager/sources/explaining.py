"""Saying what else to try when an image is not there or its source cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from local_imager.errors import InputError, IntegrityError, NotFound, SourceError
from local_imager.profile.model import Requirement
from local_imager.profile.version import TalosVersion, nearest_versions

WHERE_ELSE: Final = (
    "where no registry can be reached: use the lab (UPSTREAM=lab), a layout or bundle "
    "(--from DIR), or a mirror (upstream.mirrors)"
)


class Explainer:
    """Gives errors of sources a way out; ``versions`` are those at hand, asked for when needed."""

    def __init__(self, versions: Callable[[], Sequence[TalosVersion]]) -> None:
        self._versions = versions

    @contextmanager
    def explained(self, requirement: Requirement | None) -> Iterator[None]:
        """Say what else to try when the source lacks an image or cannot be read."""
        try:
            yield
        except NotFound as error:
            raise self.not_found(requirement, error.message, error.hint) from error
        except IntegrityError:
            raise
        except SourceError as error:
            raise self.unreachable(error) from error

    def not_found(self, requirement: Requirement | None, message: str, hint: str) -> NotFound:
        """Return the error for an image that is not there, with the nearest versions of Talos.

        ``requirement`` is None for an image that has nothing to do with a version.
        """
        if requirement is not None and requirement.role not in ("extension", "overlay"):
            near = self._nearest(requirement.tag)
            if near:
                return NotFound(
                    f"there is no Talos {requirement.tag} ({message})",
                    hint=f"nearest versions at hand: {near}",
                    code="unknown-version",
                )
        return NotFound(message, hint=hint)

    def no_builder(self, base: TalosVersion, oldest: TalosVersion) -> NotFound:
        """Return the error for a version that no imager at hand can make images of."""
        lacking = f"no imager of {oldest} or later is at hand to make images of {base}"
        near = self._nearest(str(base))
        if near:
            hint = f"nearest versions at hand: {near}"
            return NotFound(
                f"there is no Talos {base} ({lacking})", hint=hint, code="unknown-version"
            )
        return NotFound(
            lacking,
            hint="fetch one (local-imager sources fetch --version …), or take "
            "--builder same, which may need --allow-privileged",
            code="no-builder",
        )

    def _nearest(self, tag: str) -> str:
        """Return the versions nearest to a tag as text; empty when it exists or none are known."""
        try:
            asked = TalosVersion.parse(tag)
            known = self._versions()
        except (SourceError, InputError):
            return ""
        if asked in known:
            return ""
        return ", ".join(str(v) for v in nearest_versions(asked, known))

    def unreachable(self, error: SourceError) -> SourceError:
        """Return the error with the places that images can come from."""
        hint = "; ".join(filter(None, (error.hint, WHERE_ELSE)))
        return SourceError(error.message, hint=hint, code=error.code)
