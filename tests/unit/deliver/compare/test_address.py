"""How the address of a factory may be written."""

from __future__ import annotations

import pytest

from local_imager.deliver.compare.address import factory_address
from local_imager.errors import ExitCode, InputError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://factory.talos.dev/", "https://factory.talos.dev"),
        ("factory.lan:8080/sub", "https://factory.lan:8080/sub"),
        ("http://factory.lan", "http://factory.lan"),
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("127.0.0.1.example", "https://127.0.0.1.example"),
    ],
)
def test_addresses(text: str, wanted: str) -> None:
    assert factory_address(text) == wanted


def test_plain_http_is_spoken_when_the_settings_say_so() -> None:
    assert factory_address("factory.lan", plain_http=True) == "http://factory.lan"


@pytest.mark.parametrize(
    "text",
    ["", "ftp://h.example", "https://", "https://me:pw@h.example", "https://h.example/?q=1",
     "https://h.example/#a", "https://[::1", "h.example/a b", "https://h.example/\n"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    with pytest.raises(InputError) as caught:
        factory_address(text)
    assert caught.value.exit_code == ExitCode.INPUT_INVALID
    assert "pw" not in caught.value.message
