"""What the record of a converted disk says of its META values: what the result shows."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from local_imager.build.request import ImagerRequest
from tests.diskfiles import gpt_disk, gpt_entry, meta_copy, patched
from tests.fakerunner import FakeRunner
from tests.unit.build.samples import disk_plan
from tests.unit.build.test_assemble import Shop

VALUES = [(10, b"addresses: []\n"), (12, b"demo-rack")]
FIRST, LAST, SECTORS = 100, 100 + 2047, 4096
_CLUSTER = 1 << 16


def disk(values: list[tuple[int, bytes]]) -> bytes:
    data = gpt_disk(SECTORS, [gpt_entry(FIRST, LAST, "META")])
    return patched(data, FIRST * 512, meta_copy(values) * 2)


def qcow2(data: bytes) -> bytes:
    """Return a qcow2 of these bytes: header, one table of each level, clusters in their order."""
    count = -(-len(data) // _CLUSTER)
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 16, len(data), 0, 1, _CLUSTER, 0, 0, 0, 0, 0, 0, 0, 4, 104),
    )
    second = b"".join(struct.pack(">Q", (3 + n) * _CLUSTER) for n in range(count))
    tables = (head, struct.pack(">Q", 2 * _CLUSTER), second)
    return b"".join(one.ljust(_CLUSTER, b"\0") for one in tables) + data.ljust(count * _CLUSTER)


@pytest.mark.parametrize(
    ("converted", "way"), [(VALUES, "ordered"), (VALUES[::-1], "plain"), (None, "plain")]
)
def test_the_record_says_which_way_meta_took(
    tmp_path: Path, converted: list[tuple[int, bytes]] | None, way: str
) -> None:
    """An engine that shares no files converts its own copy, whose values nobody put in order."""
    (tmp_path / "raw").write_bytes(disk(VALUES[::-1]))
    (tmp_path / "qcow2").write_bytes(qcow2(disk(converted)) if converted else b"damaged")

    def pretend(request: ImagerRequest, command: tuple[str, ...]) -> tuple[str, ...]:
        made = tmp_path / ("raw" if command[0] == "/bin/imager" else "qcow2")
        (name,) = request.outputs
        return (
            "sh",
            "-c",
            f'cp "{made}" "{request.output_dir / name}"; test -t 0 || cat >/dev/null',
        )

    shop = Shop(tmp_path, FakeRunner(pretend))
    built = shop.build(disk_plan("metal-amd64.raw"), disk_plan("metal-amd64.qcow2", "qcow2"))
    found = {one.asset: dict(one.record["meta"]) for one in built}
    assert found["metal-amd64.raw"] == {"way": "ordered", "keys": ["0x0a", "0x0c"]}
    assert found["metal-amd64.qcow2"]["way"] == way
