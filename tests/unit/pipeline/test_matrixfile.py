"""Matrix files: what they ask for, and where they are wrong, with the line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from local_imager.errors import SchematicError
from local_imager.pipeline import matrixfile
from local_imager.pipeline.matrixfile import Cell, MatrixError, read_matrix

PLAIN = b"customization: {}\n"
ARGS = b"customization: {extraKernelArgs: [a=b]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.yaml").write_bytes(PLAIN)
    (tmp_path / "args.yaml").write_bytes(ARGS)
    (tmp_path / "same.yaml").write_bytes(b"{customization: {}}")
    (tmp_path / "bad.yaml").write_bytes(b"customisation: {}\n")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def read(folder: Path, text: str) -> tuple[Cell, ...]:
    path = folder / "matrix.yaml"
    path.write_text(text)
    return read_matrix(path, default_arch="amd64")


def told(cells: tuple[Cell, ...]) -> list[str]:
    return [f"{cell.file} {cell.version} {cell.asset}" for cell in cells]


WHOLE = """\
schematics: [plain.yaml, args.yaml]
versions:
  - v1.12.1
  - v1.13.0
arches: [amd64, arm64]
assets:
  - metal-ARCH.iso
  - kernel-amd64
"""


def test_the_product_of_all_lists_in_their_order(folder: Path) -> None:
    cells = read(folder, WHOLE)
    assert len(cells) == 2 * 2 * 3
    assert told(cells)[:4] == [
        "plain.yaml v1.12.1 metal-amd64.iso",
        "plain.yaml v1.12.1 metal-arm64.iso",
        "plain.yaml v1.12.1 kernel-amd64",
        "plain.yaml v1.13.0 metal-amd64.iso",
    ]
    assert cells[0].schematic_id == cells[3].schematic_id != cells[-1].schematic_id


def test_architectures_default_to_the_hosts(folder: Path) -> None:
    text = "schematics: [plain.yaml]\nversions: [v1.13.0]\nassets: [metal-ARCH.iso]\n"
    assert told(read(folder, text)) == ["plain.yaml v1.13.0 metal-amd64.iso"]


def test_what_is_excluded_and_included(folder: Path) -> None:
    more = """\
exclude:
  - {schematic: args.yaml, version: v1.12.1}
  - {arch: arm64, version: v1.12.1}
  - asset: kernel-amd64
  - {asset: metal-ARCH.iso, arch: amd64, schematic: args.yaml}
include:
  - {schematic: same.yaml, version: v1.9.0, assets: [metal-ARCH-uki.efi, kernel-arm64]}
  - {schematic: plain.yaml, version: v1.12.1, assets: [metal-amd64.iso]}
  - {schematic: plain.yaml, version: v1.9.0, arches: [arm64], assets: [metal-ARCH.raw.zst]}
"""
    assert told(read(folder, WHOLE + more)) == [
        "plain.yaml v1.12.1 metal-amd64.iso",
        "plain.yaml v1.13.0 metal-amd64.iso",
        "plain.yaml v1.13.0 metal-arm64.iso",
        "args.yaml v1.13.0 metal-arm64.iso",
        "same.yaml v1.9.0 metal-amd64-uki.efi",
        "same.yaml v1.9.0 metal-arm64-uki.efi",
        "same.yaml v1.9.0 kernel-arm64",
        "plain.yaml v1.9.0 metal-arm64.raw.zst",
    ]


def test_a_matrix_of_inclusions_alone(folder: Path) -> None:
    text = "include:\n- {schematic: plain.yaml, version: v1.13.0, assets: [kernel-amd64]}\n"
    assert told(read(folder, text)) == ["plain.yaml v1.13.0 kernel-amd64"]


def changed(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (changed("versions:", "version:"), 2, "'version' is not known here"),
        (changed("v1.12.1", "v1.12"), 3, "is not a Talos version"),
        (changed("v1.13.0", "v1.12.1"), 4, "stands twice in versions"),
        (changed("arm64]", "arm]"), 5, "'arm' is not an architecture"),
        (changed("metal-ARCH.iso", "metal-ARCH.ios"), 7, "metal-amd64.ios"),
        (changed("kernel-amd64", "kernel"), 8, "kernel"),
        (changed("kernel-amd64", "[kernel-amd64]"), 8, "a text is wanted"),
        (changed("kernel-amd64", "~"), 8, "a text is wanted"),
        (changed("kernel-amd64", '"a\\nb"'), 8, "one printable line"),
        (changed("[amd64, arm64]", "amd64"), 5, "a list is wanted"),
        (WHOLE + "assets: [kernel-amd64]\n", 9, "'assets' stands here twice"),
        (WHOLE + "exclude: [{version: v1.9.0}]\n", 9, "this excludes nothing"),
        (WHOLE + "exclude:\n- {}\n", 10, "at least one of"),
        (WHOLE + "exclude:\n- {platform: metal}\n", 10, "'platform' is not known here"),
        (WHOLE + "include:\n- {schematic: plain.yaml}\n", 10, "needs 'version'"),
        (changed("[plain", "&a [plain") + "include: *a\n", 1, "anchors and aliases are not used"),
        (changed("- v1.13.0", "- &v v1.13.0"), 4, "anchors and aliases are not used"),
        (WHOLE + "---\nfoo: 1\n", 9, "one document is wanted"),
        (WHOLE + "...\n---\n", 10, "one document is wanted"),
        (
            WHOLE + "include:\n- {schematic: plain.yaml, version: v1.9.0, assets: []}\n",
            10,
            "nothing",
        ),
        (changed("args.yaml", "no.yaml"), 1, "cannot read the schematic no.yaml: No such file"),
        (changed("args.yaml", "pipe"), 1, "cannot read the schematic pipe: not a regular file"),
        (changed("args.yaml", "."), 1, "cannot read the schematic .: not a regular file"),
        (changed("[plain.yaml, args.yaml]", "[plain.yaml, *x]"), 1, "x"),
        ("- a\n", 1, "a mapping is wanted"),
        ("{}\n", 1, "asks for nothing"),
        ("versions: [v1.13.0\n", 2, ""),
    ],
)
def test_a_fault_is_told_with_its_line(folder: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(MatrixError) as caught:
        read(folder, text)
    assert words in caught.value.message
    assert (caught.value.line, caught.value.source) == (line, str(folder / "matrix.yaml"))


def test_faults_without_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, words in (("", "empty"), (" " * (256 * 1024 + 1), "larger than")):
        with pytest.raises(MatrixError, match=words):
            read(folder, text)
    with pytest.raises(MatrixError, match="cannot read"):
        read_matrix(folder / "nothing.yaml", default_arch="amd64")
    with pytest.raises(MatrixError, match="not a regular file"):
        read_matrix(folder / "pipe", default_arch="amd64")
    monkeypatch.setattr(matrixfile, "MAX_CELLS", 11)
    with pytest.raises(MatrixError, match="more than 11 cells"):
        read(folder, WHOLE)


def test_a_fault_of_a_schematic_is_told_where_it_is(folder: Path) -> None:
    with pytest.raises(SchematicError) as caught:
        read(folder, changed("args.yaml", "bad.yaml"))
    assert caught.value.location == f"{folder / 'bad.yaml'}:1:1"


def test_a_schematic_of_one_dash_is_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "-").write_bytes(ARGS)
    (folder / "matrix.yaml").write_text(changed("plain.yaml", '"-"'))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", None)
    cells = read_matrix(Path("matrix.yaml"), default_arch="amd64")
    assert cells[0].file == "-" and cells[0].schematic_id == cells[-1].schematic_id


def test_the_end_of_the_only_document_may_be_marked(folder: Path) -> None:
    assert read(folder, f"---\n{WHOLE}...\n") == read(folder, WHOLE)


DOCS = Path(__file__).resolve().parents[3] / "docs"


def documented() -> str:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "matrix.md").read_text(), re.S)
    return str(block)


def test_the_documented_matrix_is_one(folder: Path) -> None:
    (folder / "schematics").mkdir()
    for name in ("vanilla", "extensions", "secureboot"):
        text = f"customization: {{extraKernelArgs: [{name}=1]}}\n"
        (folder / "schematics" / f"{name}.yaml").write_text(text)
    cells = told(read(folder, documented()))
    # 2 x 2 x 5, less two arm64 assets of two schematics, less three disks of one, and one more.
    assert len(cells) == 20 - 4 - 3 + 1
    assert cells[-1] == "schematics/secureboot.yaml v1.13.0 metal-amd64-secureboot.iso"


def test_the_json_schema_says_the_same() -> None:
    schema = json.loads((DOCS / "matrix.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema)
    for text in (documented(), WHOLE):
        assert valid.is_valid(yaml.safe_load(text))
    for text in (
        changed("versions:", "version:"),
        changed("v1.12.1", "v1.12"),
        changed("v1.13.0", "v1.12.1"),
        changed("arm64]", "arm]"),
        WHOLE + "exclude:\n- {}\n",
        WHOLE + "include:\n- {schematic: plain.yaml}\n",
        WHOLE + "include:\n- {schematic: plain.yaml, version: v1.9.0, assets: []}\n",
        "{}",
    ):
        assert not valid.is_valid(yaml.safe_load(text)), text
