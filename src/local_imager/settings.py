"""All settings, from defaults, files, environment and flags, validated together.

Order, later wins: defaults, the user's file, the project's ``local-imager.toml``, environment
(``LOCAL_IMAGER_*``), flags. A setting that loosens trust or privilege (``loosens``) counts only
from the user's own file or from flags: a hostile checkout or environment must not be able to
switch it on. ``[[trust]]`` entries of a project file are kept apart and can only tighten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from local_imager.errors import SettingsError

PROJECT_FILE: Final = "local-imager.toml"
ENV_PREFIX: Final = "LOCAL_IMAGER_"
# A settings file is written by hand; more than this is a mistake (or an attack on the parser).
MAX_FILE_BYTES: Final = 256 * 1024
# Keys of ours have three parts at most.
_MAX_DOTS: Final = 8
# A container with less is refused by the engine (6 MB), or killed before it made anything.
LEAST_MEMORY_BYTES: Final = 64 * 1024**2
# The closing quote is optional, so that a string without one costs one look, not one per quote.
_TOML_STRING: Final = re.compile(r""""(?:[^"\\]|\\.)*"?|'[^']*'?""")


def _xdg(variable: str, fallback: str) -> Path:
    configured = os.environ.get(variable, "")
    return Path(configured) if configured.startswith("/") else Path.home() / fallback


def default_store() -> Path:
    """Return the store's default place (XDG data directory)."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "local-imager" / "store"


def user_file() -> Path:
    """Return the place of the user's own settings file (XDG config directory)."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "local-imager" / "config.toml"


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class TrustEntries:
    """``[[trust]]`` tables of one file; ``origin`` says whose file it is, for messages."""

    origin: str
    base_dir: Path
    entries: tuple[Mapping[str, Any], ...]
    from_user: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default; see ``SETTINGS`` for keys, meaning and units."""

    store: Path = field(default_factory=default_store)
    out: Path = Path("out")
    registry: str = "ghcr.io"
    source: str = ""
    plain_http: bool = False
    mirrors: Mapping[str, str] = field(default_factory=dict)
    answer_timeout_s: int = 30
    builder: str = "newest"
    timeout_s: int = 1800
    memory_bytes: int = 4 * 1024**3
    jobs: int = field(default_factory=_cpus)
    max_builds: int = field(default_factory=lambda: max(1, _cpus() // 2))
    allow_privileged: bool = False
    secureboot_keys: Path | None = None
    epoch: int = 1559424892
    factory_url: str = "https://factory.talos.dev/"
    trust: tuple[TrustEntries, ...] = ()


Parse = Callable[[object, Path], object]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its field, its TOML key, how a value is read, and whether it loosens safety."""

    field: str
    key: str
    parse: Parse
    meaning: str
    loosens: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.key.upper().replace(".", "_")


def _text(value: object, _base: Path) -> str:
    if not isinstance(value, str) or any(c in value for c in "\n\r\0"):
        raise ValueError("wants one line of text")
    return value


def _registry(value: object, base: Path) -> str:
    text = _text(value, base).strip("/")
    host = text.partition("/")[0]
    if not text or "://" in text or not ("." in host or ":" in host or host == "localhost"):
        raise ValueError("wants a registry host with an optional path, such as ghcr.io")
    return text


def _path(value: object, base: Path) -> Path:
    text = _text(value, base)
    if not text:
        raise ValueError("wants a path")
    return base / Path(text).expanduser()


def _source(value: object, base: Path) -> str:
    """Keep URLs and registry hosts; make a path absolute, relative to the file that names it."""
    text = _text(value, base)
    if not text or "://" in text:
        return text
    prefix = "oci:" if text.startswith("oci:") else ""
    candidate = base / Path(text.removeprefix("oci:")).expanduser()
    if prefix or text.startswith((".", "/", "~")) or candidate.exists():
        return prefix + str(candidate)
    return text


def _flag(value: object, _base: Path) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("wants true or false")


def _count(value: object, _base: Path) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError("wants a whole number above zero")
    return number


def _epoch(value: object, base: Path) -> int:
    # cpio and squashfs, where the imager writes it, count seconds in 32 bits.
    number = _count(value, base)
    if number > _MAX_EPOCH:
        raise ValueError(f"wants seconds since 1970, {_MAX_EPOCH} at most")
    return number


_MAX_EPOCH: Final = 2**32 - 1
_UNITS: Final = {"": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "K": 1024, "M": 1024**2}
_SIZE_UNITS: Final = {**_UNITS, "G": 1024**3, "KB": 1000, "MB": 1000**2, "GB": 1000**3}


def _size(value: object, base: Path) -> int:
    if not isinstance(value, str):
        return _count(value, base)
    digits = value.strip().rstrip("KMGIBkmgib ")
    unit = value.strip()[len(digits) :].strip().upper()
    if not digits.isdecimal() or unit not in _SIZE_UNITS or int(digits) == 0:
        raise ValueError("wants a size such as 4GiB or 500MB")
    return int(digits) * _SIZE_UNITS[unit]


def _memory(value: object, base: Path) -> int:
    size_bytes = _size(value, base)
    if size_bytes < LEAST_MEMORY_BYTES:
        raise ValueError("wants 64MiB or more, since no imager runs with less")
    return size_bytes


def _builder(value: object, base: Path) -> str:
    text = _text(value, base)
    if text not in ("newest", "same") and not text.startswith("v"):
        raise ValueError("wants newest, same, or a version such as v1.13.0")
    return text


def _mirrors(value: object, base: Path) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part]
        if not all(separator and location for _, separator, location in pairs):
            raise ValueError("wants host=location pairs separated by commas")
        return {host: location for host, _, location in pairs}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("wants a table of registry host = location")
    return {host: _source(location, base) for host, location in value.items()}


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("store", "store", _path, "directory of the content-addressed store"),
    Setting("out", "out", _path, "directory that built files are exported to"),
    Setting("registry", "upstream.registry", _registry, "registry prefix in image names"),
    Setting("source", "upstream.source", _source, "where images are read: layout, tar or URL"),
    Setting("plain_http", "upstream.plain_http", _flag, "speak http without TLS to the registry"),
    Setting("mirrors", "upstream.mirrors", _mirrors, "registry host = place to read it from"),
    Setting("answer_timeout_s", "upstream.timeout_s", _count, "seconds a registry may be silent"),
    Setting("builder", "build.builder", _builder, "imager that runs: newest, same or a version"),
    Setting("timeout_s", "build.timeout_s", _count, "seconds after which a build is stopped"),
    Setting("memory_bytes", "build.memory", _memory, "memory limit of the build container"),
    Setting("jobs", "build.jobs", _count, "parallel downloads and conversions"),
    Setting("max_builds", "build.max_builds", _count, "builds at once on this host"),
    Setting(
        "allow_privileged",
        "build.allow_privileged",
        _flag,
        "let an old imager have loop devices and mount rights",
        loosens=True,
    ),
    Setting("secureboot_keys", "build.secureboot_keys", _path, "directory of secure boot keys"),
    Setting("epoch", "build.epoch", _epoch, "SOURCE_DATE_EPOCH of builds, in seconds"),
    Setting("factory_url", "factory.url", _text, "URL named by the virtual extension's author"),
)
_BY_KEY: Final = {setting.key: setting for setting in SETTINGS}


def load_settings(
    *,
    flags: Mapping[str, object] | None = None,
    config: Path | None = None,
    policies: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    project_dir: Path | None = None,
) -> Settings:
    """Return the settings in force; every fault of every place is reported at once.

    ``flags`` maps field names to values (None is "not given"); ``config`` replaces the user's
    file; ``policies`` are further files whose ``[[trust]]`` entries count as the user's own.
    Raises :class:`SettingsError` with one line per fault, each naming its key.
    """
    environment = os.environ if environment is None else environment
    project_dir = Path.cwd() if project_dir is None else project_dir
    faults: list[str] = []
    values: dict[str, object] = {}
    trust: list[TrustEntries] = []
    own = config if config is not None else user_file()
    if config is not None and not config.is_file():
        raise SettingsError(f"there is no settings file {config}", hint="check --config")
    for path, from_user in ((own, True), (project_dir / PROJECT_FILE, False)):
        if path.is_file():
            _read_file(path, from_user, values, trust, faults)
    for policy in policies:
        _read_policy(policy, trust, faults)
    _read_environment(environment, values, faults)
    for name, value in (flags or {}).items():
        if value is not None:
            _take(next(s for s in SETTINGS if s.field == name), value, Path.cwd(), values, faults)
    if faults:
        raise SettingsError(
            "the settings are not valid:\n  " + "\n  ".join(faults),
            hint="`local-imager doctor --settings` lists every key and where it may be set",
        )
    return Settings(**values, trust=tuple(trust))  # type: ignore[arg-type]


def _take(
    setting: Setting, value: object, base: Path, values: dict[str, object], faults: list[str]
) -> None:
    try:
        values[setting.field] = setting.parse(value, base)
    except ValueError as error:
        faults.append(f"{setting.key} {error} (got {str(value)[:60]!r})")


def _load_toml(path: Path, faults: list[str]) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as stream:
            untrusted_data = stream.read(MAX_FILE_BYTES + 1)
        if len(untrusted_data) > MAX_FILE_BYTES:
            raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
        text = untrusted_data.decode()
        if costly := costly_toml_line(text):
            raise ValueError(f"line {costly} has a string of several lines or an endless key")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path}: {error}")
        return {}


def costly_toml_line(untrusted_text: str) -> int | None:
    """Return the first line that would make the parser slow, counted from 1, or None.

    ``tomllib`` takes quadratic time over a dotted key of many parts; a string of several lines
    could hide one from the count, and nothing of ours needs either.
    """
    for number, line in enumerate(untrusted_text.split("\n"), 1):
        if '"""' in line or "'''" in line:
            return number
        if line.count(".") > _MAX_DOTS and _TOML_STRING.sub("", line).count(".") > _MAX_DOTS:
            return number
    return None


def _read_file(
    path: Path,
    from_user: bool,
    values: dict[str, object],
    trust: list[TrustEntries],
    faults: list[str],
) -> None:
    document = _load_toml(path, faults)
    _collect_trust(path, document.pop("trust", []), from_user, trust, faults)
    for key, value in _flatten(document):
        setting = _BY_KEY.get(key)
        if setting is None:
            faults.append(f"{path}: {key} is not a setting{_nearest(key)}")
        elif setting.loosens and not from_user:
            faults.append(
                f"{path}: {key} loosens safety, so only your own file or a flag may set it"
            )
        else:
            before = len(faults)
            _take(setting, value, path.resolve().parent, values, faults)
            faults[before:] = [f"{path}: {fault}" for fault in faults[before:]]


def _read_policy(path: Path, trust: list[TrustEntries], faults: list[str]) -> None:
    document = _load_toml(path, faults)
    entries = document.pop("trust", None)
    if entries is None:
        faults.append(f"{path}: has no [[trust]] entry")
        return
    _collect_trust(path, entries, True, trust, faults)


def load_policy_file(path: Path) -> TrustEntries:
    """Return the ``[[trust]]`` entries of one file; raises :class:`SettingsError`."""
    faults: list[str] = []
    trust: list[TrustEntries] = []
    _read_policy(path, trust, faults)
    if faults or not trust:
        raise SettingsError("; ".join(faults) or f"{path}: has no [[trust]] entry")
    return trust[0]


def _collect_trust(
    path: Path, entries: object, from_user: bool, trust: list[TrustEntries], faults: list[str]
) -> None:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        faults.append(f"{path}: trust wants [[trust]] tables")
        return
    if entries:
        trust.append(TrustEntries(str(path), path.resolve().parent, tuple(entries), from_user))


def _flatten(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """List dotted keys; a table that is itself a value (``upstream.mirrors``) stays whole."""
    pairs: list[tuple[str, object]] = []
    for name, value in document.items():
        key = prefix + name
        if isinstance(value, dict) and key not in _BY_KEY:
            pairs += _flatten(value, key + ".")
        else:
            pairs.append((key, value))
    return pairs


def _read_environment(
    environment: Mapping[str, str], values: dict[str, object], faults: list[str]
) -> None:
    known = {setting.variable: setting for setting in SETTINGS}
    for name, value in environment.items():
        if not name.startswith(ENV_PREFIX) or name in _OWN_VARIABLES or not value:
            continue
        setting = known.get(name)
        if setting is None:
            faults.append(f"{name} in the environment is not a setting{_nearest(name, known)}")
        elif setting.loosens:
            faults.append(f"{name} loosens safety, so the environment may not set it")
        else:
            before = len(faults)
            _take(setting, value, Path.cwd(), values, faults)
            faults[before:] = [f"{name}: {fault}" for fault in faults[before:]]


# Read by the command line (--config, --debug, signing) and by the lab, not by this module.
_OWN_VARIABLES: Final = frozenset(
    {ENV_PREFIX + name for name in ("CONFIG", "DEBUG", "KEY_PASSPHRASE", "LAB")}
)


def _nearest(key: str, candidates: Mapping[str, Setting] | None = None) -> str:
    import difflib

    close = difflib.get_close_matches(key, candidates or _BY_KEY, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
