"""Registries that ask who we are, send us elsewhere, or page their answers."""

from __future__ import annotations

import pytest

from local_imager.errors import NotFound, SourceError
from local_imager.oci.credentials import Credentials, CredentialStore
from local_imager.oci.model import (
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Digest,
    Reference,
    canonical_json,
)
from local_imager.oci.registry import RegistryClient
from tests.integration.test_registry_faults import (
    BLOB,
    IMAGE,
    LAYER,
    MANIFEST,
    client_of,
    manifest_answer,
    refused,
)
from tests.scriptedhttp import Ask, Scripted, scripted_server

# Redirects


def test_a_redirect_to_another_host_gets_no_credentials() -> None:
    with scripted_server(lambda ask: ask.answer(200, BLOB)) as elsewhere:

        def script(ask: Ask) -> None:
            if "authorization" not in ask.headers:
                ask.answer(401, WWW_Authenticate='Basic realm="here"')
            else:
                ask.answer(307, Location=f"{elsewhere.url}/cdn", Set_Cookie="track=1; Path=/")

        with scripted_server(script) as server:
            store = fixed_credentials(server)
            client = RegistryClient(server.url, "registry.example", credentials=store)
            assert b"".join(client.blob(IMAGE, LAYER)) == BLOB
            assert b"".join(client.blob(IMAGE, LAYER)) == BLOB
            assert all("cookie" not in headers for _, headers in server.requests)
        assert elsewhere.requests
        for _, headers in elsewhere.requests:
            assert "authorization" not in headers and "cookie" not in headers


@pytest.mark.parametrize("target", ["/v2/again", "ftp://x/y", "file:///etc/passwd", "http://"])
def test_redirects_in_circles_or_to_strange_places_end(target: str) -> None:
    server = refused(lambda ask: ask.answer(302, Location=target), SourceError)
    assert len(server.requests) < 10


# Tokens


def fixed_credentials(server: Scripted) -> CredentialStore:
    store = CredentialStore({})
    store._config = {"auths": {server.address: {"username": "me", "password": "secret-word"}}}
    return store


def token_script(ask: Ask, *, expires: int = 300) -> None:
    if ask.path.startswith("/token"):
        ask.answer(200, canonical_json({"token": "good", "expires_in": expires}))
    elif ask.headers.get("authorization") != "Bearer good":
        realm = f"http://{ask.server.address}/token"
        challenge = (
            f'Bearer realm="{realm}",service="reg",scope="repository:siderolabs/imager:pull"'
        )
        ask.answer(401, WWW_Authenticate=challenge)
    else:
        manifest_answer(ask)


def test_a_token_is_asked_for_once() -> None:
    with scripted_server(token_script) as server:
        client = RegistryClient(
            server.url, "registry.example", credentials=fixed_credentials(server)
        )
        client.resolve(IMAGE)
        client.resolve(IMAGE)
        asked = [path for path in server.paths if path.startswith("/token")]
        assert len(asked) == 1
        assert "scope=repository%3Asiderolabs%2Fimager%3Apull" in asked[0]
        assert "secret-word" not in str(server.paths)
        sent = next(headers for path, headers in server.requests if path.startswith("/token"))
        assert sent["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"token":5}', b'{"token":"a\\nb"}', b"[]", b'{"expires_in":"x"}']
)
def test_a_token_server_that_answers_nonsense(body: bytes) -> None:
    def script(ask: Ask) -> None:
        if ask.path.startswith("/token"):
            ask.answer(200, body)
        else:
            ask.answer(401, WWW_Authenticate=f'Bearer realm="http://{ask.server.address}/token"')

    assert "no usable answer" in refused(script, SourceError).paths[-1]


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer realm="file:///etc"',
        "Negotiate",
        'Bearer realm="http://u:p@h/"',
        "x" * 99,
    ],
)
def test_a_challenge_that_cannot_be_answered(challenge: str) -> None:
    server = refused(lambda ask: ask.answer(401, WWW_Authenticate=challenge), SourceError)
    assert len(server.requests) < 4


def test_an_optional_token_that_is_refused_falls_back_to_anonymous() -> None:
    def script(ask: Ask) -> None:
        if ask.path.startswith("/token") and "authorization" in ask.headers:
            ask.answer(403)
        else:
            token_script(ask)

    with scripted_server(script) as server:
        store = CredentialStore({})
        store._config = {}
        store.find = lambda *_: Credentials("token", "x", "GITHUB_TOKEN", optional=True)  # type: ignore[method-assign]
        client = RegistryClient(server.url, "registry.example", credentials=store)
        assert client.resolve(IMAGE).digest == Digest.of(MANIFEST)


# Pages


def test_tags_over_pages_and_their_bounds() -> None:
    def script(ask: Ask) -> None:
        page = int(ask.path.partition("page=")[2] or 0)
        body = canonical_json({"name": "x", "tags": [f"v{page}.0", "v0.0"]})
        link = f'</v2/siderolabs/imager/tags/list?page={page + 1}>; rel="next"'
        ask.reply(200, body, {"Link": link} if page < 2 else {})

    with scripted_server(script) as server:
        assert client_of(server).tags(IMAGE) == ("v0.0", "v1.0", "v2.0")


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"tags":["a"]}', "</v2/siderolabs/imager/tags/list?again>; rel=next"),
        (b'{"tags":["a"]}', '<http://elsewhere.example/v2/x>; rel="next"'),
        (b'{"tags":"a"}', ""),
        (b'{"tags":[1]}', ""),
        (b'{"tags":["%s"]}' % (b"a" * 500), ""),
    ],
)
def test_tag_lists_that_are_endless_or_nonsense(body: bytes, link: str) -> None:
    with scripted_server(lambda ask: ask.answer(200, body, Link=link)) as server:
        with pytest.raises(SourceError):
            client_of(server).tags(IMAGE)


def test_the_referrers_api_is_used_where_it_is() -> None:
    wanted = Descriptor.of(b"signature", MEDIA_MANIFEST, artifact_type="application/x")
    index = canonical_json(
        {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [wanted.as_dict()]}
    )

    def script(ask: Ask) -> None:
        if "/referrers/" in ask.path:
            ask.answer(200, index, Content_Type=MEDIA_INDEX)
        else:
            ask.answer(404)

    with scripted_server(script) as server:
        assert client_of(server).referrers(IMAGE, Digest.of(b"x")) == (wanted,)


def test_a_web_page_in_place_of_the_referrers_api_leads_to_the_tag() -> None:
    def script(ask: Ask) -> None:
        if "/referrers/" in ask.path:
            ask.answer(200, b"<html>", Content_Type="text/html")
        else:
            ask.answer(404)

    with scripted_server(script) as server:
        assert client_of(server).referrers(IMAGE, Digest.of(b"x")) == ()
        assert server.paths[-1].endswith(f"/manifests/sha256-{Digest.of(b'x').hex}")


def test_a_name_of_another_registry_is_not_served() -> None:
    with scripted_server(manifest_answer) as server:
        with pytest.raises(NotFound, match=r"serves registry\.example"):
            client_of(server).resolve(Reference.parse("ghcr.io/siderolabs/imager:v1.13.0"))
        assert not server.requests
