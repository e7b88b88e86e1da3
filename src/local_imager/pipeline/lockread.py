"""Reading a lock strictly: it comes with a checkout, so nothing in it is believed before it fits.

A lock can only narrow what a build may use: its images pass the trust policy like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, get_args

from local_imager.errors import InputError
from local_imager.oci.model import Digest, Reference
from local_imager.pipeline.lockfile import (
    FORMAT,
    Lock,
    LockedImage,
    LockedSchematic,
    LockedVersion,
    LockFile,
    Recipe,
)
from local_imager.profile.model import ARCHES, Arch, Role
from local_imager.profile.version import TalosVersion
from local_imager.settings import costly_toml_line

# A version with a dozen schematics takes some 10 KiB; more than this was not made by us.
MAX_LOCK_BYTES: Final = 4 * 1024**2
# Far above any real lock, and few enough to compare each with each.
MAX_ENTRIES: Final = 4096
# The longest texts are a policy's sentence and a keyless signer.
MAX_TEXT: Final = 1024
_ROLES: Final[tuple[Role, ...]] = get_args(Role)
_SIZE_KEYS: Final = frozenset({*ARCHES, "any"})
_MAX_SIZE_BYTES: Final = 1 << 50
_PLACE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


def read_lock(path: Path) -> LockFile:
    """Return the lock in a file.

    Raises :class:`InputError` (code ``lock-missing`` or ``lock-malformed``) that names the place.
    """
    try:
        with path.open("rb") as stream:
            untrusted_data = stream.read(MAX_LOCK_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot read the lock {path}: {error.strerror}",
            hint="make one with local-imager lock SCHEMATIC… --version V --arch A, "
            "or name it: --locked=FILE",
            code="lock-missing",
            source=str(path),
        ) from error
    return LockFile(path, parse_lock(untrusted_data, str(path)), Digest.of(untrusted_data))


def parse_lock(untrusted_data: bytes, source: str) -> Lock:
    """Return the lock that these bytes are; raises :class:`InputError` (``lock-malformed``)."""
    import tomllib

    if len(untrusted_data) > MAX_LOCK_BYTES:
        raise malformed(source, f"it is larger than {MAX_LOCK_BYTES} bytes")
    try:
        text = untrusted_data.decode()
        if costly := costly_toml_line(text):
            raise malformed(source, "a string of several lines or an endless key", costly)
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise malformed(source, "it is not UTF-8") from error
    except RecursionError as error:
        raise malformed(source, "it is nested too deeply") from error
    except ValueError as error:
        found = _PLACE.search(str(error))
        line, column = (int(found[1]), int(found[2])) if found else (None, None)
        raise malformed(source, f"it is not TOML: {error}"[:300], line, column) from error
    return _lock(_Table(document, "", source))


def malformed(
    source: str, problem: str, line: int | None = None, column: int | None = None
) -> InputError:
    """Return the error for a lock that cannot be read as one."""
    return InputError(
        f"the lock is not valid: {problem}",
        hint="take back the change, or delete the file and make it anew with local-imager lock",
        code="lock-malformed",
        source=source,
        line=line,
        column=column,
    )


def is_line(value: object) -> bool:
    """Say whether a value may stand in a lock as text: printable, of one line, not too long."""
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT


class _Table:
    """A table of the document that is taken apart key by key; what is left over is a fault."""

    def __init__(self, values: Mapping[str, Any], place: str, source: str) -> None:
        self._values, self._place, self._source = dict(values), place, source
        self._known: list[str] = []

    def fault(self, key: str, problem: str) -> InputError:
        """Return the error for a key of this table."""
        return malformed(self._source, f"{self._place}{key} {problem}")

    def keys(self) -> frozenset[str]:
        """Return the keys that were not taken yet."""
        return frozenset(self._values)

    def take(self, key: str) -> Any:
        """Take a value out, whatever it is."""
        self._known.append(key)
        if key not in self._values:
            raise self.fault(key, "is missing")
        return self._values.pop(key)

    def text(self, key: str, *, least: int = 1) -> str:
        """Take a line of printable text with a least length."""
        value = self.take(key)
        if not is_line(value) or len(value) < least:
            raise self.fault(key, "wants a line of text")
        return str(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts."""
        values = self.take(key)
        if not isinstance(values, list) or len(values) > MAX_ENTRIES:
            raise self.fault(key, "wants a list of texts")
        if not all(is_line(value) for value in values):
            raise self.fault(key, "wants a list of texts")
        return tuple(values)

    def number(self, key: str, ceiling: int = 1 << 40) -> int:
        """Take a whole number from zero on."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= ceiling:
            raise self.fault(key, "wants a whole number")
        return value

    def table(self, key: str) -> _Table:
        """Take a table."""
        value = self.take(key)
        if not isinstance(value, dict):
            raise self.fault(key, "wants a table")
        return _Table(value, f"{self._place}{key}.", self._source)

    def tables(self, key: str) -> list[_Table]:
        """Take the tables of an array; there may be none."""
        self._known.append(key)
        values = self._values.pop(key, [])
        if not isinstance(values, list) or len(values) > MAX_ENTRIES:
            raise self.fault(key, f"wants [[{key}]] tables, {MAX_ENTRIES} at most")
        if not all(isinstance(value, dict) for value in values):
            raise self.fault(key, f"wants [[{key}]] tables")
        places = (f"{self._place}{key}[{number}]." for number in range(1, len(values) + 1))
        pairs = zip(values, places, strict=True)
        return [_Table(value, place, self._source) for value, place in pairs]

    def version(self, key: str) -> TalosVersion:
        """Take a Talos version."""
        try:
            return TalosVersion.parse(self.text(key))
        except InputError as error:
            raise self.fault(key, f"is wrong: {error.message}; {error.hint}") from error

    def digest(self, key: str) -> Digest:
        """Take a digest."""
        try:
            return Digest.parse(self.text(key))
        except InputError as error:
            raise self.fault(key, f"is wrong: {error.message}") from error

    def end(self) -> None:
        """Refuse keys that nobody asked for."""
        import difflib

        for key in self._values:
            close = difflib.get_close_matches(key, self._known, n=1)
            more = f" (did you mean {close[0]}?)" if close else ""
            raise self.fault(repr(key[:60]), f"is not a key of a lock{more}")


def _lock(top: _Table) -> Lock:
    number = top.number("format")
    if number != FORMAT:
        raise top.fault("format", f"is {number}; this program knows {FORMAT}: use a newer one")
    recipe, trust = top.table("recipe"), top.table("trust")
    lock = Lock(
        tool=top.text("tool"),
        registry=top.text("registry"),
        arches=_arches(top),
        recipe=Recipe(
            recipe.number("epoch"),
            recipe.text("factory_url", least=0),
            recipe.number("conversion"),
        ),
        trusted_roots=_roots(trust),
        policy=trust.texts("policy"),
        schematics=tuple(_schematic(entry) for entry in top.tables("schematic")),
        versions=tuple(_version(entry) for entry in top.tables("version")),
    )
    for table in (recipe, trust, top):
        table.end()
    return lock


def _arches(top: _Table) -> tuple[Arch, ...]:
    given = top.texts("arches")
    found = tuple(arch for arch in ARCHES if arch in given)
    if not given or len(found) != len(given):
        raise top.fault("arches", f"wants some of {', '.join(ARCHES)}, each once")
    return found


def _roots(trust: _Table) -> tuple[str, ...]:
    roots = trust.texts("trusted_roots")
    try:
        return tuple(str(Digest.parse(root)) for root in roots)
    except InputError as error:
        raise trust.fault("trusted_roots", f"wants digests: {error.message}") from error


def _schematic(entry: _Table) -> LockedSchematic:
    found = LockedSchematic(entry.text("file"), entry.text("id"))
    if PurePosixPath(found.file).is_absolute():
        raise entry.fault("file", "wants a path relative to the lock")
    if not _HEX.fullmatch(found.schematic_id):
        raise entry.fault("id", "wants the 64 hex digits of a schematic ID")
    entry.end()
    return found


def _version(entry: _Table) -> LockedVersion:
    version, builder = entry.version("version"), entry.version("builder")
    images = tuple(_image(image) for image in entry.tables("image"))
    entry.end()
    seen = set()
    for image in images:
        if image.key in seen:
            raise entry.fault("image", f"has {' '.join(image.key)} more than once")
        seen.add(image.key)
    return LockedVersion(version, builder, images)


def _image(entry: _Table) -> LockedImage:
    role = entry.text("role")
    known = next((known for known in _ROLES if known == role), None)
    if known is None:
        raise entry.fault("role", f"wants one of {', '.join(_ROLES)}")
    name, tag = entry.text("name"), entry.text("tag")
    try:
        Reference.parse(f"registry.example/{name}:{tag}")
    except InputError as error:
        raise entry.fault("name", f"and tag are no image: {name}:{tag}") from error
    sizes = entry.table("size_bytes")
    found = LockedImage(
        known, name, tag, entry.digest("digest"), entry.text("signer"), _sizes(sizes)
    )
    entry.end()
    return found


def _sizes(table: _Table) -> Mapping[str, int]:
    keys = sorted(_SIZE_KEYS & table.keys())
    found = {key: table.number(key, _MAX_SIZE_BYTES) for key in keys}
    table.end()
    return found
