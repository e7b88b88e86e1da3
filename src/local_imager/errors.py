"""The exception tree: what went wrong, how to mend it, and the exit code that says so.

Nothing in here prints or exits; ``cli`` turns an error into text and a status.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The process exit statuses, one per kind of cause, stable across versions."""

    OK = 0
    FAILED = 1
    INPUT_INVALID = 2
    VERIFICATION_REFUSED = 3
    COMPARISON_DIFFERS = 4
    HOST_UNABLE = 5
    INTERRUPTED = 130


class LocalImagerError(Exception):
    """The work failed; every error of this package derives from this class.

    ``message`` is one sentence in plain words, ``hint`` says what to do about it (may be empty),
    ``code`` is a stable machine-readable reason for ``--json``.
    """

    exit_code: ExitCode = ExitCode.FAILED
    code: str = "failed"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def as_dict(self) -> dict[str, object]:
        """Return the error as the JSON object that ``--json`` prints."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class InputError(LocalImagerError):
    """Something that the user gave (argument, file, setting) is not valid.

    ``source`` names the file or argument; ``line`` and ``column`` count from 1.
    """

    exit_code = ExitCode.INPUT_INVALID
    code = "input-invalid"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        source: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.source = source
        self.line = line
        self.column = column

    @property
    def location(self) -> str:
        """``file:line:column`` as far as it is known, else an empty string."""
        known = [str(part) for part in (self.source, self.line, self.column) if part]
        return ":".join(known)

    def as_dict(self) -> dict[str, object]:
        """Return the error with its place in the input file."""
        place = {"source": self.source, "line": self.line, "column": self.column}
        return {**super().as_dict(), **place}


class SchematicError(InputError):
    """The schematic cannot be read or breaks a rule of the schematic format."""

    code = "schematic-invalid"


class PlanError(InputError):
    """The schematic, version and asset do not go together."""

    code = "plan-refused"


class SettingsError(InputError):
    """A setting has an unknown key or a value that is not valid."""

    code = "settings-invalid"


class VerificationRefused(LocalImagerError):
    """An image was not accepted by the trust policy, so nothing of it was unpacked or run."""

    exit_code = ExitCode.VERIFICATION_REFUSED
    code = "verification-refused"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        image: str = "",
        tried: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.image = image
        self.tried = tried

    def as_dict(self) -> dict[str, object]:
        """Return the refusal with the image and everything that was tried."""
        return {**super().as_dict(), "image": self.image, "tried": list(self.tried)}


class SourceError(LocalImagerError):
    """A source image could not be found or fetched (network, registry, layout)."""

    code = "source-failed"


class NotFound(SourceError):
    """The registry, layout or store does not hold what was asked for."""

    exit_code = ExitCode.INPUT_INVALID
    code = "not-found"


class IntegrityError(SourceError):
    """Bytes do not match the digest or size that names them."""

    exit_code = ExitCode.VERIFICATION_REFUSED
    code = "integrity"


class StoreError(LocalImagerError):
    """The content-addressed store cannot be read or written."""

    code = "store-failed"


class StoreUnable(StoreError):
    """This host does not let a file be read or written: no room, no rights, a broken disk."""

    exit_code = ExitCode.HOST_UNABLE


class BuildError(LocalImagerError):
    """The imager ran and failed, or did not deliver what was planned."""

    code = "build-failed"


class HostError(LocalImagerError):
    """This host or its container engine is not able to do the work."""

    exit_code = ExitCode.HOST_UNABLE
    code = "host-unable"


class Interrupted(LocalImagerError):
    """The user or the system asked to stop; everything started was cleaned up."""

    exit_code = ExitCode.INTERRUPTED
    code = "interrupted"
