"""What a location means."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_imager.errors import InputError, NotFound, SourceError
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.open import MirroredSource, open_source
from local_imager.oci.registry import RegistryClient
from tests.images import IMAGE, REGISTRY, make_sample, tar_of


def test_paths_are_layouts(tmp_path: Path) -> None:
    sample = make_sample(tmp_path / "layout")
    tar = tar_of(sample.path, tmp_path / "x.tar")
    for location in (str(sample.path), f"oci:{sample.path}", str(tar)):
        source = open_source(location, registry=REGISTRY)
        assert isinstance(source, LayoutSource)
        assert source.resolve(IMAGE).digest == sample.index.digest
    with pytest.raises(NotFound):
        open_source("./nothing-here", registry=REGISTRY)


@pytest.mark.parametrize(
    ("location", "plain_http", "url"),
    [
        ("mirror.example", False, "https://mirror.example"),
        ("localhost:5000", False, "https://localhost:5000"),
        ("localhost:5000", True, "http://localhost:5000"),
        ("http://127.0.0.1:5000/", False, "http://127.0.0.1:5000"),
        ("https://mirror.example/some/prefix", True, "https://mirror.example/some/prefix"),
        ("[::1]:5000/prefix", False, "https://[::1]:5000/prefix"),
    ],
)
def test_hosts_and_urls_are_registries(location: str, plain_http: bool, url: str) -> None:
    source = open_source(location, registry="ghcr.io", plain_http=plain_http)
    assert isinstance(source, RegistryClient)
    assert source.location == url


@pytest.mark.parametrize(
    "location",
    [
        "https://user:secret@host.example",
        "ftp://host.example",
        "https://host.example?x=1",
        "https://host.example/UPPER",
        "https://host.example/a/../b",
        "host example",
        "https://",
    ],
)
def test_strange_addresses_are_refused(location: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(location, registry="ghcr.io")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("location", "identity", "plain_http", "name", "place"),
    [
        ("", "ghcr.io", False, "ghcr.io/a/b:c", ("https://ghcr.io", "a/b")),
        ("", "ghcr.io", True, "r.local:5000/a/b:c", ("http://r.local:5000", "a/b")),
        ("", "docker.io", False, "docker.io/a/b:c", ("https://registry-1.docker.io", "a/b")),
        ("http://h:1", "ghcr.io", False, "ghcr.io/a/b:c", ("http://h:1", "a/b")),
        ("http://h:1/p/q", "ghcr.io", False, "ghcr.io/a/b:c", ("http://h:1", "p/q/a/b")),
        ("http://h:1", "ghcr.io/a", False, "ghcr.io/a/b:c", ("http://h:1", "b")),
    ],
)
def test_where_a_name_is_asked_for(
    location: str, identity: str, plain_http: bool, name: str, place: tuple[str, str]
) -> None:
    from local_imager.oci.model import Reference

    source = open_source(location, registry=identity, plain_http=plain_http)
    assert isinstance(source, RegistryClient)
    assert source._place(Reference.parse(name)) == place


def test_mirrors_serve_the_longest_matching_part(tmp_path: Path) -> None:
    sample = make_sample(tmp_path / "layout")
    mirrors = {REGISTRY: "http://127.0.0.1:9", f"{REGISTRY}/siderolabs": str(sample.path)}
    source = open_source("", registry="ghcr.io", mirrors=mirrors)
    assert isinstance(source, MirroredSource)
    assert source.resolve(IMAGE).digest == sample.index.digest


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "nonsense://x"),
        ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
    ],
)
def test_an_environment_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SourceError, match="proxy or certificate settings"):
        open_source("https://host.example", registry="ghcr.io")
