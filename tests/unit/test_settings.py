"""Settings: precedence, validation of everything at once, and what may never loosen safety."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_imager.errors import SettingsError
from local_imager.settings import SETTINGS, Settings, load_settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "config" / "local-imager").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    return tmp_path


def user(home: Path, text: str) -> None:
    (home / "config" / "local-imager" / "config.toml").write_text(text)


def project(home: Path, text: str) -> None:
    (home / "project" / "local-imager.toml").write_text(text)


def load(
    home: Path,
    environment: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
    config: Path | None = None,
    policies: tuple[Path, ...] = (),
) -> Settings:
    return load_settings(
        environment=environment or {},
        flags=flags,
        config=config,
        policies=policies,
        project_dir=home / "project",
    )


def test_defaults_name_the_official_registry_and_an_xdg_store(home: Path) -> None:
    settings = load(home)
    assert settings.registry == "ghcr.io"
    assert settings.store == home / "data" / "local-imager" / "store"
    assert settings.trust == ()


def test_later_places_win(home: Path) -> None:
    user(home, '[build]\ntimeout_s = 1\n[factory]\nurl = "https://user.example/"\n')
    project(home, "[build]\ntimeout_s = 2\n")
    assert load(home).timeout_s == 2
    assert load(home, {"LOCAL_IMAGER_BUILD_TIMEOUT_S": "3"}).timeout_s == 3
    assert load(home, {"LOCAL_IMAGER_BUILD_TIMEOUT_S": "3"}, {"timeout_s": 4}).timeout_s == 4
    assert load(home).factory_url == "https://user.example/"


def test_a_named_settings_file_replaces_the_users(home: Path) -> None:
    user(home, "[build]\ntimeout_s = 1\n")
    other = home / "other.toml"
    other.write_text('[upstream]\nregistry = "lab.example.test"\n')
    settings = load(home, config=other)
    assert (settings.registry, settings.timeout_s) == ("lab.example.test", 1800)
    with pytest.raises(SettingsError, match="there is no settings file"):
        load(home, config=home / "absent.toml")


def test_paths_are_relative_to_the_file_that_names_them(home: Path) -> None:
    user(home, 'store = "images"\n[upstream]\nsource = "./layout"\n')
    settings = load(home)
    assert settings.store == home / "config" / "local-imager" / "images"
    assert settings.source == str(home / "config" / "local-imager" / "layout")


def test_urls_and_hosts_are_no_paths(home: Path) -> None:
    project(home, '[upstream]\nsource = "http://127.0.0.1:5000"\n')
    assert load(home).source == "http://127.0.0.1:5000"
    assert load(home, flags={"source": "mirror.example.org/talos"}).source == (
        "mirror.example.org/talos"
    )


def test_every_fault_is_told_at_once_with_its_key(home: Path) -> None:
    user(home, '[build]\ntimeout_s = "soon"\nbulider = "newest"\n')
    project(home, 'upstream = {registry = "no host"}\n')
    with pytest.raises(SettingsError) as caught:
        load(home, {"LOCAL_IMAGER_BUILD_MEMORY": "4 potatoes", "LOCAL_IMAGER_BILD_JOBS": "1"})
    text = caught.value.message
    for part in (
        "build.timeout_s wants a whole number",
        "build.bulider is not a setting (did you mean build.builder?)",
        "upstream.registry wants a registry host",
        "build.memory wants a size",
        "LOCAL_IMAGER_BILD_JOBS in the environment is not a setting",
    ):
        assert part in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("500MB", 500_000_000), ("512m", 512 << 20), ("67108864", 64 << 20)],
)
def test_sizes(home: Path, text: str, size: int) -> None:
    assert load(home, {"LOCAL_IMAGER_BUILD_MEMORY": text}).memory_bytes == size


def test_memory_that_no_imager_runs_with_is_refused(home: Path) -> None:
    for text in ("1", "6MB", "63MiB"):
        with pytest.raises(SettingsError, match=r"build\.memory wants 64MiB or more"):
            load(home, {"LOCAL_IMAGER_BUILD_MEMORY": text})


def test_project_and_environment_cannot_loosen(home: Path) -> None:
    project(home, "[build]\nallow_privileged = true\n")
    with pytest.raises(SettingsError, match="allow_privileged loosens safety"):
        load(home, {"LOCAL_IMAGER_BUILD_ALLOW_PRIVILEGED": "true"})
    project(home, "")
    user(home, "[build]\nallow_privileged = true\n")
    assert load(home).allow_privileged


def test_trust_entries_remember_whose_they_are(home: Path) -> None:
    entry = '[[trust]]\npattern = "a.example/**"\nkey = "a.pub"\n'
    user(home, entry)
    project(home, entry)
    policy = home / "policy.toml"
    policy.write_text(entry)
    found = [(Path(t.origin).name, t.from_user) for t in load(home, policies=(policy,)).trust]
    assert found == [("config.toml", True), ("local-imager.toml", False), ("policy.toml", True)]


@pytest.mark.parametrize("text", ["not toml", "trust = 1\n", "", "x" * 300_000])
def test_a_broken_policy_is_refused(home: Path, text: str) -> None:
    policy = home / "policy.toml"
    policy.write_text(text)
    with pytest.raises(SettingsError, match=r"policy\.toml"):
        load(home, policies=(policy,))


def test_each_setting_is_a_field_with_its_own_key_and_variable() -> None:
    fields = set(Settings.__dataclass_fields__) - {"trust"}
    assert {setting.field for setting in SETTINGS} == fields
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize(
    "text",
    ["a" + ".a" * 60_000 + " = 1\n", "x = " + "[" * 50_000, 'x = """\n' + "a." * 50_000 + '"""\n'],
    ids=["dotted", "nested", "hidden"],
)
def test_a_file_that_holds_the_parser_up_is_refused(home: Path, text: str) -> None:
    project(home, text)
    with pytest.raises(SettingsError, match=r"local-imager\.toml"):
        load(home)


def test_the_epoch_is_one_that_archives_can_hold(home: Path) -> None:
    assert load(home, {"LOCAL_IMAGER_BUILD_EPOCH": str(2**32 - 1)}).epoch == 2**32 - 1
    with pytest.raises(SettingsError, match="seconds since 1970, 4294967295 at most"):
        load(home, {"LOCAL_IMAGER_BUILD_EPOCH": str(2**32)})
    project(home, "[build]\nepoch = 99999999999999\n")
    with pytest.raises(SettingsError, match=r"build\.epoch wants seconds since 1970"):
        load(home)
