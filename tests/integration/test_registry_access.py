"""A real registry behind a password or with a certificate of its own."""

from __future__ import annotations

import base64
import datetime
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local_imager.errors import SourceError
from local_imager.oci.credentials import CredentialStore
from local_imager.oci.registry import RegistryClient
from tests.images import IMAGE, REGISTRY, Sample, make_sample
from tests.realregistry import push_layout, running_registry

# crypt_blowfish's published test vector: user "me", password "U*U".
HTPASSWD = "me:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample") / "layout")


@pytest.fixture(scope="module")
def guarded(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}"
    with running_registry(folder / "registry", auth=auth) as address:
        push_layout(sample.layout, address, auth=("me", "U*U"))
        yield address


def client_with(folder: Path, address: str, password: str | None) -> RegistryClient:
    entry = {"auth": base64.b64encode(f"me:{password}".encode()).decode()} if password else {}
    (folder / "config.json").write_text(json.dumps({"auths": {address: entry}}))
    store = CredentialStore({"DOCKER_CONFIG": str(folder)})
    return RegistryClient(f"http://{address}", REGISTRY, credentials=store)


def test_credentials_of_the_docker_configuration_open_it(
    guarded: str, sample: Sample, tmp_path: Path
) -> None:
    client = client_with(tmp_path, guarded, "U*U")
    assert client.resolve(IMAGE).digest == sample.index.digest
    layer = sample.layer_of("amd64")
    wanted = sample.layout.blob_path(layer.digest).read_bytes()
    assert b"".join(client.blob(IMAGE, layer)) == wanted


@pytest.mark.parametrize("password", ["wrong-word", None])
def test_without_them_the_error_says_how_to_log_in(
    guarded: str, tmp_path: Path, password: str | None
) -> None:
    with pytest.raises(SourceError) as caught:
        client_with(tmp_path, guarded, password).resolve(IMAGE)
    assert caught.value.code == "unauthorized"
    assert f"docker login {guarded}" in caught.value.hint
    assert "wrong-word" not in caught.value.message + caught.value.hint


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve https with a certificate that nobody knows; yield address and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    pem.write_bytes(private + public)
    (tmp_path / "ca.pem").write_bytes(public)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"localhost:{server.server_address[1]}", tmp_path / "ca.pem"
        server.shutdown()
        thread.join()


def test_an_unknown_certificate_is_explained_and_can_be_trusted(
    self_signed: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, authority = self_signed
    with pytest.raises(SourceError, match="is not trusted") as caught:
        RegistryClient(f"https://{address}", REGISTRY).resolve(IMAGE)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert caught.value.code == "tls"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with pytest.raises(SourceError, match="does not have"):
        RegistryClient(f"https://{address}", REGISTRY).resolve(IMAGE)
