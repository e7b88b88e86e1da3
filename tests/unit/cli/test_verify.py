"""``verify`` and ``verify-blob``: every case of the signature fixtures, and how one asks."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from local_imager.cli.main import run
from local_imager.oci.layout import Layout
from local_imager.oci.model import MEDIA_MANIFEST, Descriptor, Digest
from tests.unit.sources.forge import REGISTRY, Forge, Signing
from tests.unit.sources.test_sigfix import CASES, OTHERWISE, REASONS, SIGFIX

NAME: Final = "siderolabs/imager"
BLOBS: Final = [case for case in CASES if case["form"] == "bundle-file"]
IMAGES: Final = [case for case in CASES if case["form"] != "bundle-file"]


@pytest.fixture(autouse=True)
def no_network_and_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def flags_of(policy: dict[str, Any]) -> list[str]:
    """The case's policy in flags."""
    flags: list[str] = []
    for name in ("issuer", "issuer_regexp", "identity", "identity_regexp", "hash_algorithm"):
        if name in policy:
            flags += [f"--{name.replace('_', '-')}", policy[name]]
    for name in ("key", "trusted_root"):
        if name in policy:
            flags += [f"--{name.replace('_', '-')}", str(SIGFIX / policy[name])]
    for name in ("require_tlog", "require_sct"):
        if name in policy:
            flags.append(("--" if policy[name] else "--no-") + name.replace("_", "-"))
    if policy.get("require_signed_timestamp"):
        flags.append("--require-signed-timestamp")
    if "predicate_type" in policy:
        flags += ["--predicate-type", policy["predicate_type"]]
    return flags


def asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Run the command with --json; return the exit code and the document."""
    capsys.readouterr()
    code = run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def check(case: dict[str, Any], code: int, document: dict[str, Any]) -> None:
    passes = (case["expect"] == "pass") != (case["name"] in OTHERWISE)
    if passes:
        assert (code, document["verified"], document["code"]) == (0, True, "accepted")
        assert any(one["accepted"] for one in document["signatures"])
        assert document["signer"] and document["policy"]
        return
    reason = REASONS[case["name"]]
    if reason == "settings-invalid":
        assert (code, document["error"]["code"]) == (2, reason)
        return
    assert (code, document["verified"], document["code"]) == (3, False, reason)
    for one in document["signatures"]:
        assert one["code"]
        assert one["accepted"] is False


@pytest.mark.parametrize("ask", ["name@digest", "digest"])
@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case["name"])
def test_image_case(
    case: dict[str, Any], ask: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = SIGFIX / case["layout"]
    if layout.name.endswith(".tar.gz"):
        plain = tmp_path / "layout.tar"
        plain.write_bytes(gzip.decompress(layout.read_bytes()))
        layout = plain
    image = case["digest"]
    if ask == "name@digest":
        image = f"{case['image_ref']}@{image}"
    flags = flags_of(case["policy"])
    if "" in flags:  # an identity that is empty is no question
        assert run(["verify", image, "--layout", str(layout), *flags]) == 2
        return
    check(case, *asked(["verify", image, "--layout", str(layout), *flags], capsys))


@pytest.mark.parametrize("case", BLOBS, ids=lambda case: case["name"])
def test_blob_case(case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(SIGFIX / case["artifact"]), "--bundle", str(SIGFIX / case["bundle"])]
    check(case, *asked(["verify-blob", *files, *flags_of(case["policy"])], capsys))


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "upstream")


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    key = Signing()
    (tmp_path / "key.pub").write_text(key.pem)
    return key


def test_every_signature_is_listed_with_its_own_answer(
    forge: Forge, signing: Signing, capsys: pytest.CaptureFixture[str]
) -> None:
    top = forge.image(NAME, "v1", {"a": b"b"}, ("amd64",))
    forge.sign_bundle(NAME, top, Signing().bundle(top.digest), signing.bundle(top.digest))
    forge.sign_legacy(NAME, top, signing, Signing())
    image = f"{REGISTRY}/{NAME}:v1"
    ask = ["verify", image, "--layout", str(forge.layout.path), "--key", "key.pub"]
    code, document = asked(ask, capsys)
    assert code == 0
    assert document["image"] == image
    assert document["digest"] == str(top.digest)
    answers = [(one["form"], one["code"]) for one in document["signatures"]]
    assert answers == [
        ("bundle-v0.3", "signature-invalid"),
        ("bundle-v0.3", "accepted"),
        ("cosign-legacy", "accepted"),
        ("cosign-legacy", "signature-invalid"),
    ]
    assert document["evidence"]["rollback"]["state"] == "not-consulted"
    assert run(ask) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"verified  {image}\n")
    assert text.count("accepted, ") == 2


@pytest.mark.parametrize("image", [f"{NAME}:v1", "imager:v1", f"{REGISTRY}/{NAME}:v1"])
def test_names_without_registry_are_found(
    image: str, forge: Forge, signing: Signing, capsys: pytest.CaptureFixture[str]
) -> None:
    top = forge.image(NAME, "v1", {}, ("amd64",))
    forge.sign_legacy(NAME, top, signing)
    layout = str(forge.layout.path)
    code, document = asked(["verify", image, "--layout", layout, "--key", "key.pub"], capsys)
    assert (code, document["image"]) == (0, f"{REGISTRY}/{NAME}:v1")


def test_a_policy_file_stands_alone(
    forge: Forge, signing: Signing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = forge.image(NAME, "v1", {}, ("amd64",))
    forge.sign_legacy(NAME, top, signing)
    image, layout = f"{REGISTRY}/{NAME}:v1", str(forge.layout.path)
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[[trust]]\npattern = "{REGISTRY}/**"\nkey = "key.pub"\n')
    ask = ["verify", "--layout", layout, "--policy", str(policy)]
    assert asked([*ask, image], capsys)[0] == 0
    assert asked([*ask, str(top.digest)], capsys)[1]["image"] == f"{image}@{top.digest}"
    policy.write_text('[[trust]]\npattern = "other.test/**"\nkey = "key.pub"\n')
    code, document = asked([*ask, image], capsys)
    assert (code, document["code"]) == (3, "no-policy")
    assert [one["code"] for one in document["signatures"]] == ["no-policy"]


def test_accepted_without_verification_is_not_verified(
    forge: Forge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge.image(NAME, "v1", {}, ("amd64",))
    policy = tmp_path / "policy.toml"
    policy.write_text('[[trust]]\npattern = "**"\naccept_unverified = true\n')
    layout = str(forge.layout.path)
    ask = ["verify", f"{NAME}:v1", "--layout", layout, "--policy", str(policy)]
    code, document = asked(ask, capsys)
    assert (code, document["verified"], document["unverified"]) == (3, False, True)
    assert document["code"] == "unverified"


@pytest.mark.parametrize(
    "flags",
    [
        ["--key", "key.pub", "--issuer", "https://i"],
        ["--key", "key.pub", "--policy", "p.toml"],
        ["--key", "key.pub", "--require-sct"],
        ["--key", "missing.pub"],
        ["--key", "key.pub", "--hash-algorithm", "md5"],
        ["--issuer", "https://i"],
        ["--identity", "me"],
        ["--issuer", "i", "--issuer-regexp", "i", "--identity", "me"],
        ["--issuer", "i", "--identity-regexp", "(?=lookahead)"],
        ["--issuer", "i", "--identity-regexp", r"(a)\1"],
        ["--issuer", "i", "--identity-regexp", "a{1001}"],
        ["--issuer", "i", "--identity", "me", "--trusted-root", "missing.json"],
        ["--hash-algorithm", "sha256"],
        ["--policy", "missing.toml"],
        ["--no-such-flag"],
    ],
    ids=" ".join,
)
def test_questions_that_cannot_be_asked(flags: list[str], forge: Forge, signing: Signing) -> None:
    top = forge.image(NAME, "v1", {}, ("amd64",))
    forge.sign_bundle(NAME, top, signing.bundle(top.digest))
    assert run(["verify", f"{NAME}:v1", "--layout", str(forge.layout.path), *flags]) == 2


@pytest.mark.parametrize(
    "image", ["", "imager", "registry.test/imager", "sha256:abc", "registry.test/imager:v9", "a b"]
)
def test_images_that_are_not_there(image: str, forge: Forge, signing: Signing) -> None:
    forge.image(NAME, "v1", {}, ("amd64",))
    forge.image("other", "v1", {}, ("amd64",))
    layout = str(forge.layout.path)
    assert run(["verify", image, "--layout", layout, "--key", "key.pub"]) == 2


def test_a_name_that_fits_two_images_is_refused(forge: Forge, signing: Signing) -> None:
    forge.image("a/imager", "v1", {"a": b""}, ("amd64",))
    forge.image("b/imager", "v1", {"b": b""}, ("amd64",))
    layout = str(forge.layout.path)
    assert run(["verify", "imager:v1", "--layout", layout, "--key", "key.pub"]) == 2


def test_no_layout_at_all(tmp_path: Path, signing: Signing) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "missing"):
        ask = ["verify", "imager:v1", "--layout", str(tmp_path / place), "--key", "key.pub"]
        assert run(ask) == 2
    assert run(["verify", "imager:v1", "--key", "key.pub"]) == 2


def test_a_manifest_that_is_far_too_large_is_refused(
    tmp_path: Path, signing: Signing, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "upstream")
    data = b"{" + b" " * (9 * 1024 * 1024) + b"}"
    layout.put_bytes(data, MEDIA_MANIFEST)
    digest = Digest.of(data)
    layout.set_ref(f"{REGISTRY}/{NAME}:v1", Descriptor(MEDIA_MANIFEST, digest, len(data)))
    ask = ["verify", f"{REGISTRY}/{NAME}:v1", "--layout", str(layout.path), "--key", "key.pub"]
    code, document = asked(ask, capsys)
    assert (code, document["code"], document["verified"]) == (3, "malformed", False)
    assert asked([*ask[:1], str(digest), *ask[2:]], capsys)[1]["code"] == "malformed"


def test_the_index_may_be_garbage(
    forge: Forge, signing: Signing, capsys: pytest.CaptureFixture[str]
) -> None:
    (forge.layout.path / "index.json").write_text('{"manifests": [{"digest": 1}]}')
    layout = str(forge.layout.path)
    code, document = asked(["verify", "imager:v1", "--layout", layout, "--key", "key.pub"], capsys)
    assert (code, document["verified"], document["code"]) == (3, False, "malformed")


def test_a_blob_under_a_policy_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in BLOBS if case["expect"] == "pass" and "key" in case["policy"])
    key = SIGFIX / case["policy"]["key"]
    policy = tmp_path / "policy.toml"
    ask = ["verify-blob", str(SIGFIX / case["artifact"]), "--bundle", str(SIGFIX / case["bundle"])]
    for pattern, more, wanted in (
        ("**", "", (0, "accepted")),
        ("ghcr.io/**", "", (3, "no-policy")),
        ("**", "threshold = 2", (3, "threshold")),
    ):
        policy.write_text(f'[[trust]]\npattern = "{pattern}"\nkey = "{key}"\n{more}\n')
        code, document = asked([*ask, "--policy", str(policy)], capsys)
        assert (code, document["code"]) == wanted
    assert run(["verify-blob", "missing", "--bundle", "missing", "--key", str(key)]) == 2


def test_without_any_interface() -> None:
    """A keyless signature is verified in a network namespace that has nothing in it."""
    case = next(c for c in IMAGES if c["expect"] == "pass" and c["policy"]["type"] == "keyless")
    ask = ["verify", case["digest"], "--layout", str(SIGFIX / case["layout"])]
    program = [sys.executable, "-m", "local_imager", *ask, *flags_of(case["policy"])]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", *program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("verified  ")
