"""The tests' own factory answers as the real one did (tests/golden/factory.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.factoryserver import FactoryServer, factory_server

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "factory.json").read_text())
IDS = GOLDEN["schematic_ids"]
ASSETS = (
    "kernel-amd64",
    "initramfs-amd64.xz",
    "metal-amd64.iso",
    "metal-amd64-secureboot.iso",
    "metal-arm64.raw.xz",
    "cmdline-metal-amd64",
)
# Answers to how a schematic is applied, and of the imager itself: this server builds nothing.
BUILDING = ("error enhancing profile", "yaml: construct", "internal server error")


def of_this_server(exchange: dict[str, Any]) -> bool:
    """Whether the exchange is one that a client of files and schematics can have."""
    target, host = exchange["target"], exchange.get("request_headers", {}).get("Host")
    if exchange["setup"] == "build" or host or exchange["method"] == "OPTIONS":
        return False
    if target.endswith("/.."):  # no client sends such a path as it is
        return False
    if exchange["status"] == 301 or exchange["body"].startswith(BUILDING):
        return "banana" in target
    asset = target.partition("?")[0].rpartition("/")[2]
    return exchange["status"] != 200 or asset in ASSETS or "/schematics/" in target


EXCHANGES = [one for one in GOLDEN["exchanges"] if of_this_server(one)]


def named(exchange: dict[str, Any]) -> str:
    return f"{exchange['method']} {exchange['setup']} {exchange['target']}".replace("/", "|")


@pytest.fixture(scope="module")
def server() -> Iterator[FactoryServer]:
    with factory_server() as running:
        for schematic in IDS.values():
            for version in ("v1.13.0", "v1.11.5", "v1.6.8"):
                running.serve(schematic, version, dict.fromkeys(ASSETS, b"0123456789"))
        running.schematics[IDS["everything"]] = _text_of(IDS["everything"])
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


def _text_of(schematic: str) -> str:
    target = f"/schematics/{schematic}"
    return next(str(one["body"]) for one in GOLDEN["exchanges"] if one["target"] == target)


def test_enough_exchanges_are_held_against_it() -> None:
    assert len(EXCHANGES) >= 30
    assert {one["status"] for one in EXCHANGES} >= {200, 201, 302, 400, 402, 404, 405, 500}


@pytest.mark.parametrize("exchange", EXCHANGES, ids=named)
def test_answers_as_the_real_factory(
    server: FactoryServer, http: httpx.Client, exchange: dict[str, Any]
) -> None:
    server.redirect = exchange["setup"] == "cached-redirect"
    answer = http.request(
        exchange["method"],
        server.url + exchange["target"],
        content=exchange.get("request_body", "").encode(),
        headers=exchange.get("request_headers", {}),
    )
    assert answer.status_code == exchange["status"]
    wanted = {k: v for k, v in exchange["headers"].items() if k not in ("X-Request-Id", "Location")}
    assert {name: answer.headers.get(name) for name in wanted} == wanted
    assert ("X-Request-Id" in answer.headers) == ("X-Request-Id" in exchange["headers"])
    if answer.status_code == 302:
        there = http.get(answer.headers["Location"])
        assert (there.status_code, there.content) == (200, b"0123456789")
    elif exchange["method"] != "HEAD":
        assert answer.text == exchange["body"]


def test_only_the_place_that_it_redirects_to_knows_ranges(
    server: FactoryServer, http: httpx.Client
) -> None:
    url = f"{server.url}/image/{IDS['vanilla']}/v1.13.0/metal-amd64.iso"
    part = {"Range": "bytes=4-"}
    server.redirect = False
    plain = http.get(url, headers=part)
    assert (plain.status_code, plain.content) == (200, b"0123456789")
    assert "ETag" not in plain.headers
    server.redirect = True
    ranged = http.get(url, headers=part, follow_redirects=True)
    assert (ranged.status_code, ranged.content) == (206, b"456789")
    assert ranged.headers["Content-Range"] == "bytes 4-9/10"
    other = {**part, "If-Range": '"another"'}
    assert http.get(url, headers=other, follow_redirects=True).status_code == 200
    past = http.get(url, headers={"Range": "bytes=10-"}, follow_redirects=True)
    assert past.status_code == 416
