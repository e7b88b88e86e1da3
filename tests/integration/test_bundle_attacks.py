"""What a person reads of hostile bundles: the commands as they are, on files of an attacker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from local_imager.cli.main import run
from local_imager.deliver.bundle.form.model import Bundle
from tests.unit.deliver.bundle.nearside import NearSide

# An escape, a C1 control sequence, a right-to-left override, a line break.
STEERING = ("\x1b[2J", "\x9b31m", "\u202etxt", "a\nb")
MARKUP = '"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;'


@dataclass
class Desk:
    """A far side in a folder; ``near`` writes what comes to it."""

    folder: Path
    near: NearSide
    capsys: pytest.CaptureFixture[str]

    def said(self, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and all that a person sees."""
        self.capsys.readouterr()
        code = run(["-q", "--policy", str(self.folder / "policy.toml"), *arguments])
        output = self.capsys.readouterr()
        return int(code), output.out + output.err

    def bundle(self, change: object = None, *, signed: bool = False) -> Path:
        """Write the near side's bundle, changed; its documents and blobs stay as they are."""
        (path,) = self.near.write(signed=signed, change=change)  # type: ignore[arg-type]
        return path


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCAL_IMAGER_STORE", str(tmp_path / "far"))
    monkeypatch.chdir(tmp_path)
    near = NearSide(tmp_path)
    (tmp_path / "images.pub").write_text(near.signing.pem)
    (tmp_path / "policy.toml").write_text(
        '[[trust]]\npattern = "upstream.test/**"\nkey = "images.pub"\n'
    )
    yield Desk(tmp_path, near, capsys)


def assert_harmless(text: str) -> None:
    """Nothing in it steers a terminal."""
    assert [line for line in text.split("\n") if not line.isprintable()] == []


COMMANDS = (
    ("bundle", "verify"),
    ("bundle", "verify", "--json"),
    ("bundle", "inspect"),
    ("bundle", "inspect", "--json"),
    ("bundle", "check"),
    ("bundle", "import"),
    ("bundle", "import", "--json"),
)


@pytest.mark.parametrize("steering", STEERING)
@pytest.mark.parametrize("place", ["name", "signer", "role", "purpose", "fact", "media type"])
def test_no_text_of_a_manifest_steers_a_terminal(desk: Desk, place: str, steering: str) -> None:
    desk.near.image("siderolabs/imager")

    def change(bundle: Bundle) -> Bundle:
        item, blob = bundle.items[0], bundle.blobs[0]
        if place == "purpose":
            return replace(bundle, blobs=(replace(blob, purpose=steering), *bundle.blobs[1:]))
        if place == "fact":
            return replace(bundle, facts={"versions": (steering,)})
        changed = {
            "name": {"name": steering},
            "signer": {"signer": steering},
            "role": {"roles": (steering,)},
            "media type": {"descriptor": replace(item.descriptor, media_type=steering)},
        }[place]
        return replace(bundle, items=(replace(item, **changed),))  # type: ignore[arg-type]

    path = desk.bundle(change)
    for command in COMMANDS:
        _, text = desk.said(*command, str(path))
        assert_harmless(text)


@pytest.mark.parametrize("steering", STEERING)
def test_no_name_of_a_file_steers_a_terminal(desk: Desk, steering: str) -> None:
    desk.near.image("siderolabs/imager")
    plain = desk.bundle()
    path = plain.with_name(f"{steering}.tar")
    path.write_bytes(plain.read_bytes())
    missing = plain.with_name(f"{steering}-missing.tar")
    broken = plain.with_name(f"{steering}-broken.tar")
    broken.write_bytes(plain.read_bytes()[:-2000])
    for command in COMMANDS:
        for file in (path, missing, broken):
            _, text = desk.said(*command, str(file))
            assert_harmless(text)
    _, text = desk.said("bundle", "diff", str(path), str(broken))
    assert_harmless(text)


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_no_text_of_a_bundle_becomes_markup_of_the_page(desk: Desk) -> None:
    desk.near.image("siderolabs/imager")
    desk.near.document("site.lock", b"lock")
    plain = desk.bundle()
    assert desk.said("bundle", "import", "--report", "plain", str(plain))[0] == 0
    (page,) = Path("plain").glob("*.html")
    before = _Seen()
    before.feed(page.read_text())

    def change(bundle: Bundle) -> Bundle:
        image, document = bundle.items
        image = replace(image, name=MARKUP, signer=MARKUP, arches=(MARKUP,), roles=(MARKUP,))
        # A name of a document is a file's, so it has no slash.
        document = replace(document, name=MARKUP.replace("/", ""))
        return replace(bundle, items=(image, document), facts={"registry": (MARKUP,)})

    hostile = desk.bundle(change)
    (desk.folder / MARKUP.replace("/", "")).write_bytes(hostile.read_bytes())
    code, _ = desk.said("bundle", "import", "--report", "hostile", MARKUP.replace("/", ""))
    assert code == 3
    (page,) = Path("hostile").glob("*.html")
    after = _Seen()
    after.feed(page.read_text())
    assert after.tags <= before.tags | {"code"} and after.attributes <= before.attributes
    assert "script" not in after.tags and "alert(1)" in page.read_text()


def test_a_report_names_no_folder_of_this_machine(desk: Desk) -> None:
    desk.near.image("siderolabs/imager")
    path = desk.bundle()
    assert path.is_absolute()
    assert desk.said("bundle", "import", "--report", "reports", str(path))[0] == 0
    for file in Path("reports").iterdir():
        assert str(desk.folder) not in file.read_text()
