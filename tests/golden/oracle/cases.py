"""Inputs for the comparison with the Go library: made at random, but the same for each seed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from random import Random

WORDS = (
    "true false yes no on off null ~ y n << 1 0 -1 1.5 1e3 0x1f 0o17 017 08 0b11 1_000 .5 .inf "
    "-.inf 12:30 190:20:30 2024-01-01 2024-01-01T00:00:00Z 2001-12-14t21:59:43.10-05:00 -0 +1 - "
    "--- ... . .. = 1e400 1e-400 9223372036854775808 18446744073709551616 -9223372036854775809 0x "
    "0_7 1__0 .5_0 .e1 5. +.5 -.5e-3 ._1 1_ -_1 2024-1-1 1:2:3 12e03 inf nan True FALSE Null YES "
    "Off a b foo key"
).split()
CHARACTERS: list[str] = [
    *"abcxyzABnNyY0123456789 \n\t\r:,-?[]{}#&*!|>'\"%@`~=<.+_/\\$()^;",
    "  ",
    "\n\n",
    "\n  ",
    ": ",
    " #",
    "- ",
    *"éĀ日\x85\u2028\u2029\ufeff😀\xa0\x7f\x80\u200b\ue000\ufffd\u3000\u1680٣",
]
PIECES: list[str] = [
    *("a b key customization extraKernelArgs overlay options image name meta bootloader".split()),
    *("embeddedMachineConfiguration officialExtensions systemExtensions owner sectorSize".split()),
    *(
        ": |:|:\n|:\n  |:\n    |\n|\n  |\n    |- |-|? |?|[|]|{|}|, |,|#| # c|\n# c\n|\t|\n\t".split(
            "|"
        )
    ),
    *("|\n", "|-\n", "|+\n", ">\n", ">-\n", "|2\n", ">1\n", "|-2\n", "'", '"', "''", "\\n", "\\"),
    *("&a ", "*a", "*b", "!!str ", "!foo ", "! ", "!!int ", "!!null ", "!!binary ", "<<: ", "<<"),
    *("---\n", "--- ", "...\n", "%YAML 1.1\n", "%TAG ! x:\n", "!<tag:yaml.org,2002:str> ", "@"),
    *("  ", " ", "é", "\x85", "\u2028", "\ufeff", "\r\n", "\r", "😀", "null", "~", "1", "{}", "[]"),
]
TAGS = (
    "!!str !!int !!float !!bool !!null !!timestamp !!binary !!map !!merge !!omap !foo ! !a!b "
    "!<tag:yaml.org,2002:int> !<!> !%61 !%c3%a9 !%ff !a,b !x] !!st%72 !<> !é"
).split()
BLOCK_LINES = (
    "a:;b:;c: 1;- ;-;- a;- b: 1;? x;? ;: y;- - z;- ? q;- : s;[1, 2];{x: y};|;> ;'s;t';&a;*a;# c;"
    "a: &a;- !!map;  ;a: |;a: >2;- |;a: b: c;'q': r;[k]: v;*a : x;<<: *a;..."
).split(";")


class CaseMaker:
    """Makes cases of several kinds; ``make`` returns the kind's name and the input."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._kinds: dict[str, Callable[[], str]] = {
            "values": self._values,
            "pieces": self._pieces,
            "scalar": self._scalar,
            "tags": self._tags,
            "keys": self._keys,
            "block": self._block,
            "merge": self._merge,
            "binary": self._binary,
            "comments": self._comments,
        }

    def make(self) -> tuple[str, bytes]:
        """Return the next case."""
        kind = self._random.choice(list(self._kinds))
        data = self._kinds[kind]().encode("utf-8", "replace")
        wrapping = self._random.random()
        if wrapping < 0.03:
            return f"{kind}, utf-16", b"\xff\xfe" + data.decode().encode("utf-16-le")
        if wrapping < 0.06:
            return f"{kind}, bom", b"\xef\xbb\xbf" * self._random.choice([1, 2]) + data
        if wrapping < 0.12:
            return f"{kind}, windows", self._across_windows(data)
        return kind, data

    def _across_windows(self, data: bytes) -> bytes:
        """Push the input over the library's 512 byte windows, with a fault behind it."""
        random = self._random
        filler = b"# " + b"c" * random.randrange(440, 520) + b"\n"
        tail = random.choice([b"\n...\n", b"\n---\n", b"\n# c\n", b""])
        fault = random.choice([b"\x00", b"\xff", b"\xe2\x82", b"@", b'"'])
        return random.choice([filler, b""]) + data + tail + b"z" * random.randrange(600) + fault

    def _text(self) -> str:
        random = self._random
        choice = random.random()
        if choice < 0.2:
            return random.choice(WORDS)
        if choice < 0.35:
            return random.choice(WORDS) + random.choice(CHARACTERS)
        if choice < 0.5:
            return "".join(random.choice("ab \n:#-'\"") for _ in range(random.randrange(9)))
        length = random.choice([1, 2, 3, 4, 6, 10, 40])
        return "".join(random.choice(CHARACTERS) for _ in range(length))

    def _quoted(self) -> str:
        """Return a text in double quotes, with the escapes that the library reads."""
        out = []
        for char in self._text():
            code = ord(char)
            if char in '"\\':
                out.append("\\" + char)
            elif code < 0x20 or code in (0x7F, 0x85, 0x2028, 0x2029, 0xFEFF):
                out.append(f"\\u{code:04x}")
            else:
                out.append(char)
        return '"' + "".join(out) + '"'

    def _number(self) -> str:
        random = self._random
        return random.choice(
            [
                str(random.randrange(-300, 300)),
                repr(random.uniform(-1, 1) * 10.0 ** random.randrange(-25, 25)),
                str(random.getrandbits(random.randrange(1, 70))),
                f"{random.randrange(-99, 99)}e{random.randrange(-30, 30)}",
            ]
        )

    def _any(self, depth: int) -> str:
        random = self._random
        choice = random.random()
        if depth <= 0 or choice < 0.4:
            return self._quoted()
        if choice < 0.6:
            return random.choice([self._number(), random.choice(WORDS), "!foo bar", "!!float 3"])
        if choice < 0.75:
            return "[" + ", ".join(self._any(depth - 1) for _ in range(random.randrange(4))) + "]"
        return "{" + ", ".join(self._entries(depth - 1, random.randrange(5))) + "}"

    def _entries(self, depth: int, count: int) -> list[str]:
        random = self._random
        keys = [random.choice([self._quoted(), random.choice(WORDS)]) for _ in range(count)]
        return [f"{key}: {self._any(depth)}" for key in keys]

    def _texts(self) -> str:
        return "[" + ", ".join(self._quoted() for _ in range(self._random.randrange(4))) + "]"

    def _values(self) -> str:
        random = self._random
        options = ", ".join(self._entries(3, random.randrange(5)))
        fields = [
            f'"embeddedMachineConfiguration": {self._quoted()}',
            f'"extraKernelArgs": {self._texts()}',
            f'"meta": [{{"key": {random.randrange(256)}, "value": {self._quoted()}}}]',
            f'"systemExtensions": {{"officialExtensions": {self._texts()}}}',
            f'"secureboot": {{"enrollKeys": {self._quoted()}}}',
        ]
        chosen = ", ".join(random.sample(fields, random.randrange(len(fields))))
        overlay = (
            f'{{"image": {self._quoted()}, "name": {self._quoted()}, "options": {{{options}}}}}'
        )
        return f'{{"overlay": {overlay}, "customization": {{{chosen}}}}}'

    def _pieces(self) -> str:
        random = self._random
        head = random.choice(
            [
                "",
                "overlay:\n  options:\n    ",
                "overlay: {options: {",
                "customization:\n  extraKernelArgs:\n    - ",
                "customization:\n  extraKernelArgs: [",
                "customization:\n  embeddedMachineConfiguration: ",
                "overlay:\n  options:\n    a:\n    - ",
            ]
        )
        body = "".join(random.choice(PIECES) for _ in range(random.randrange(1, 12)))
        return head + body + random.choice(["", "\n", "}}", "]", "}}\n"])

    def _scalar(self) -> str:
        random = self._random
        characters = "0123456789_.:-+eExobTtZ "
        text = random.choice(
            [
                random.choice(WORDS),
                self._number(),
                "".join(random.choice(characters) for _ in range(random.randrange(1, 12))),
                f"2001-{random.choice(['1', '02', '13'])}-{random.choice(['1', '28', '31', '32'])}"
                f"{random.choice(['T', 't', ' ', '  '])}1:{random.choice(['2', '59', '60'])}:03"
                f"{random.choice(['', '.50', ',5'])}"
                f"{random.choice(['', 'Z', '+01:00', '+24:60', '-00:00', '+1:00'])}",
            ]
        )
        return random.choice(
            [
                "overlay: {options: {a: TEXT, TEXT: b}}",
                "overlay:\n  options:\n    a: TEXT\n    m:\n      TEXT: v\n",
                "customization: {extraKernelArgs: [TEXT, TEXT]}",
                "customization: {diskImage: {sectorSize: TEXT}}",
                "customization: {meta: [{key: TEXT, value: TEXT}]}",
                "customization: {secureboot: {includeWellKnownCertificates: TEXT}}",
                "customization: {bootloader: TEXT}",
            ]
        ).replace("TEXT", text)

    def _tags(self) -> str:
        random = self._random
        values = "x 1 1.5 true yes ~ '1' 2024-01-01 << aGk= /w== {a: 1} [1] -0 0x10".split(" ")

        def tagged() -> str:
            anchor = random.choice(["", "", "&a "])
            return f"{random.choice(TAGS)} {anchor}{random.choice(values)}"

        head = random.choice(
            [
                "",
                "",
                "",
                "%TAG !a! tag:yaml.org,2002:\n---\n",
                "%TAG ! !x\n---\n",
                "%YAML 1.1\n---\n",
            ]
        )
        return f"{head}overlay: {{options: {{a: {tagged()}, b: [{tagged()}], {tagged()} : c}}}}"

    def _keys(self) -> str:
        random = self._random
        keys = {
            "".join(random.choice("aab100129-_. Zé٣") for _ in range(random.randrange(1, 6)))
            for _ in range(random.randrange(2, 7))
        }
        entries = ",".join(f'"{key}":{index}' for index, key in enumerate(sorted(keys)))
        return f'{{"overlay":{{"options":{{{entries}}}}}}}'

    def _block(self) -> str:
        random = self._random
        lines = [
            "    " + " " * random.choice([0, 0, 2, 2, 4, 6, 1, 3]) + random.choice(BLOCK_LINES)
            for _ in range(random.randrange(1, 9))
        ]
        return "overlay:\n  options:\n" + "\n".join(lines) + "\n"

    def _merge(self) -> str:
        random = self._random
        values = ["*a", "[*a, {f: 1}]", "{a: 9, e: 8}", "[{1: x}, *a]", "x", "{<<: *a, g: 1}"]

        def mapping() -> str:
            keys = random.sample(["a", "b", "1", '"1"', "true", "~", "1.0", "0x1"], 3)
            entries = [f"{key} : {random.choice(['1', 'x', '<<', '[*a]'])}" for key in keys]
            entries += [f"<< : {random.choice(values)}" for _ in range(random.choice([0, 1, 1]))]
            random.shuffle(entries)
            return "{" + ", ".join(entries) + "}"

        return f"overlay: {{options: {{x: &a {{k: 1, a: 2}}, y: {mapping()}, z: {mapping()}}}}}"

    def _binary(self) -> str:
        random = self._random
        length = random.choice([0, 1, 2, 50, 51, 52, 53, 105, 106])
        encoded = b64encode(bytes(random.choice([10, 65, 0xC3, 0xA9]) for _ in range(length)))
        text = f'!!binary "{encoded.decode()}{random.choice(["", "", "=", " "])}"'
        return f"overlay: {{name: {text}, options: {{a: {text}, {text} : b, c: [{{{text} : 1}}]}}}}"

    def _comments(self) -> str:
        random = self._random
        lines = [
            *("# h", "customization: # c", "  # d", "  extraKernelArgs: # e", "    # f"),
            *("    - a # g", "    # h", "    - # i", "      b", "    - 'c' # j", "  # l"),
            *("  embeddedMachineConfiguration: | # m", "    x # no", "  # n"),
        ]
        ends = ["", "", "", "", "", " ", "\t", "\n", "\n\n", "\n\t"]
        kept = [line + random.choice(ends) for line in lines if random.random() < 0.9]
        return random.choice(["\n", "\n", "\r\n", "\r"]).join(kept)
