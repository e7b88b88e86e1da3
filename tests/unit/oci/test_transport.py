"""Where requests may go: redirects, token servers, pauses."""

from __future__ import annotations

import email.utils
import time
from typing import Final

import pytest

from local_imager.errors import SourceError
from local_imager.oci.auth import _read_token, _safe_realm
from local_imager.oci.transport import _redirect_target, host_of, retry_after_s

HERE: Final = "https://registry.example/v2/a/blobs/x"


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("https://cdn.example/blob?signature=1", "https://cdn.example/blob?signature=1"),
        ("/elsewhere", "https://registry.example/elsewhere"),
        ("other", "https://registry.example/v2/a/blobs/other"),
    ],
)
def test_redirects_that_are_followed(target: str, wanted: str) -> None:
    assert _redirect_target(HERE, target) == wanted


@pytest.mark.parametrize(
    "target",
    [
        "http://registry.example/x",
        "file:///x",
        "data:x",
        "https://[cdn]/x",
        "https://me@cdn.example/x",
    ],
)
def test_a_redirect_never_leaves_https(target: str) -> None:
    with pytest.raises(SourceError, match="not safe to follow"):
        _redirect_target(HERE, target)


def test_plain_http_may_lead_to_https() -> None:
    assert _redirect_target("http://h.example/x", "https://h.example/x") == "https://h.example/x"


@pytest.mark.parametrize(
    ("origin", "realm", "safe"),
    [
        ("https://ghcr.io", "https://ghcr.io/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", True),
        ("https://ghcr.io", "http://ghcr.io/token", False),
        ("https://ghcr.io", "file:///etc/passwd", False),
        ("https://ghcr.io", "https://user:word@ghcr.io/token", False),
        ("https://ghcr.io", "https://[ghcr.io]/token", False),
        ("https://ghcr.io", "https:/\\ghcr.io", False),
        ("https://ghcr.io", "", False),
    ],
)
def test_credentials_go_only_to_safe_token_servers(origin: str, realm: str, safe: bool) -> None:
    if safe:
        assert _safe_realm(origin, realm) == realm
    else:
        with pytest.raises(SourceError, match="not safe to ask"):
            _safe_realm(origin, realm)


@pytest.mark.parametrize("lifetime", ["1" + "0" * 400, "1e400", "NaN", "-Infinity", '"x"'])
def test_a_token_whose_lifetime_is_no_number_of_seconds(lifetime: str) -> None:
    body = f'{{"token":"good","expires_in":{lifetime}}}'.encode()
    with pytest.raises(SourceError, match="no usable answer"):
        _read_token(200, body, "https://ghcr.io/token")


@pytest.mark.parametrize(
    ("value", "seconds"), [("", 0), ("7", 7), ("-1", 0), ("x", 0), ("9" * 30, 0), ("٣", 0)]
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after_s(value) == seconds


def test_retry_after_as_a_date() -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < retry_after_s(date) < 70


def test_hosts_are_shown_without_user_names() -> None:
    assert host_of("https://user:word@h.example:5000/path?query") == "h.example:5000"
