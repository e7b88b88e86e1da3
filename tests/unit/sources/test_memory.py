"""Rollback memory: what is compared, what is not, and that the gate listens to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local_imager.errors import StoreError, VerificationRefused
from local_imager.events import Message, RecordingSink
from local_imager.oci.layout_source import LayoutSource
from local_imager.oci.model import Descriptor, Digest, Reference
from local_imager.sources import trial
from local_imager.sources.acceptance import Acceptance
from local_imager.sources.candidates import Candidate
from local_imager.sources.memory import MEMORY_FILE, LogMemory
from local_imager.sources.signers import judge
from local_imager.sources.tlog import LogEvidence
from local_imager.sources.trust import KeylessSigner, KeySigner
from local_imager.sources.verify import VerifiedImage, verify_image
from local_imager.store.gc import Rules, collect
from local_imager.store.store import Store
from tests.unit.sources.forge import Forge, Signing

IMAGE = Reference.parse("upstream.test/siderolabs/imager:v1")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")


def entry(index: int, log: bytes = b"log") -> Acceptance:
    moment = datetime.fromtimestamp(1_700_000_000 + index, UTC)
    return Acceptance("me", (), LogEvidence("rekor.test", index, moment, (), log))


@pytest.fixture
def memory(tmp_path: Path) -> LogMemory:
    store = Store.open(tmp_path / "store")
    return LogMemory(store.path, store.layout.locks_dir)


def state(memory: LogMemory, reference: Reference, digest: Digest, *accepted: Acceptance) -> str:
    found = memory.compare(reference, digest, accepted).state
    memory.remember(reference, digest, accepted)
    return found


def test_an_older_entry_of_another_image_is_told(memory: LogMemory) -> None:
    assert state(memory, IMAGE, NEW, entry(20)) == "first"
    assert state(memory, IMAGE, NEW, entry(20)) == "newest"
    found = memory.compare(IMAGE, OLD, (entry(10),))
    assert found.state == "older"
    assert found.remembered is not None and found.remembered["index"] == 20
    assert "10" in found.sentence(IMAGE) and "20" in found.sentence(IMAGE)
    assert state(memory, IMAGE, OLD, entry(10)) == "older"
    # What is older is not what is remembered from now on.
    assert memory.compare(IMAGE, OLD, (entry(10),)).state == "older"
    assert state(memory, IMAGE, OLD, entry(30)) == "newest"
    assert memory.compare(IMAGE, NEW, (entry(20),)).state == "older"


def test_an_older_signature_of_the_same_image_is_no_rollback(memory: LogMemory) -> None:
    state(memory, IMAGE, NEW, entry(20))
    assert state(memory, IMAGE, NEW, entry(10)) == "newest"


@pytest.mark.parametrize(
    "other",
    [
        Reference.parse("upstream.test/siderolabs/imager:v2"),
        Reference.parse("upstream.test/siderolabs/other:v1"),
    ],
)
def test_names_and_tags_are_apart(memory: LogMemory, other: Reference) -> None:
    state(memory, IMAGE, NEW, entry(20))
    assert state(memory, other, OLD, entry(10)) == "first"


def test_logs_are_apart(memory: LogMemory) -> None:
    state(memory, IMAGE, NEW, entry(20))
    assert state(memory, IMAGE, OLD, entry(10, b"another")) == "first"


def test_a_pinned_image_and_one_without_log_entry_are_not_compared(memory: LogMemory) -> None:
    state(memory, IMAGE, NEW, entry(20))
    assert state(memory, IMAGE.with_digest(OLD), OLD, entry(10)) == "pinned"
    assert state(memory, IMAGE, OLD, Acceptance("key", ())) == "no-log-entry"
    assert memory.compare(IMAGE, NEW, (entry(20),)).state == "newest"


def test_many_at_once_lose_nothing(memory: LogMemory, tmp_path: Path) -> None:
    def remember(number: int) -> Callable[[], None]:
        reference = IMAGE.with_tag(f"v{number}")
        return lambda: memory.remember(reference, NEW, (entry(number),))

    threads = [threading.Thread(target=remember(number)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = json.loads((tmp_path / "store" / MEMORY_FILE).read_text())["images"]
    assert len(kept) == 12


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 9}', '{"version": 1, "images": 3}'])
def test_a_damaged_memory_is_an_error_with_a_way_out(
    memory: LogMemory, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "store" / MEMORY_FILE).write_text(damage)
    with pytest.raises(StoreError) as caught:
        memory.compare(IMAGE, NEW, (entry(1),))
    assert "remove it" in caught.value.hint


def test_the_memory_outlives_a_collection(memory: LogMemory, tmp_path: Path) -> None:
    state(memory, IMAGE, NEW, entry(20))
    collect(Store.open(tmp_path / "store"), Rules(grace_s=0))
    assert memory.compare(IMAGE, OLD, (entry(10),)).state == "older"


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "upstream")


def gate(
    forge: Forge, top: Descriptor, memory: LogMemory, sink: RecordingSink, **rule: str
) -> VerifiedImage:
    policy = SIGNING.policy("upstream.test/**", **rule)
    source = LayoutSource.open(forge.layout.path)
    return verify_image(source, IMAGE, top, policy, sink=sink, memory=memory)


SIGNING = Signing()


def test_the_gate_warns_or_refuses_as_the_policy_says(
    forge: Forge, memory: LogMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log entries are stood in for: making real ones takes a transparency log."""
    tops = [forge.image("siderolabs/imager", "v1", {"n": n}, ("amd64",)) for n in (b"1", b"2")]
    for top in tops:
        forge.sign_bundle("siderolabs/imager", top, SIGNING.bundle(top.digest))
    indexes = {tops[0].digest: 10, tops[1].digest: 20}

    def judged(candidate: Candidate, signer: KeySigner | KeylessSigner) -> Acceptance:
        assert judge(candidate, signer).signer
        subject = json.loads(candidate.payload or b"")["subject"][0]["digest"]["sha256"]
        return entry(indexes[Digest(subject)])

    monkeypatch.setattr(trial, "judge", judged)
    sink = RecordingSink()
    image = gate(forge, tops[1], memory, sink)
    assert image.evidence["rollback"]["state"] == "first"  # type: ignore[index]
    assert not sink.events
    image = gate(forge, tops[0], memory, sink)
    assert image.evidence["rollback"]["state"] == "older"  # type: ignore[index]
    (event,) = sink.events
    assert isinstance(event, Message) and event.level == "warning" and "OLDER" in event.text
    with pytest.raises(VerificationRefused) as caught:
        gate(forge, tops[0], memory, sink, rollback="refuse")
    assert (caught.value.code, caught.value.exit_code) == ("rollback", 3)
    assert gate(forge, tops[1], memory, sink, rollback="refuse").digest == tops[1].digest


def test_a_key_has_nothing_to_remember_and_says_so(forge: Forge, memory: LogMemory) -> None:
    top = forge.image("siderolabs/imager", "v1", {}, ("amd64",))
    forge.sign_legacy("siderolabs/imager", top, SIGNING)
    image = gate(forge, top, memory, RecordingSink(), rollback="refuse")
    assert image.evidence["rollback"] == {
        "state": "no-log-entry",
        "meaning": "nothing can be compared: no log entry was verified for this signature",
    }
