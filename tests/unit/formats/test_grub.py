"""GRUB configurations as Talos writes them, as Debian does, and ones that nobody should write."""

import pytest

from local_imager.formats.grub import MAX_CONFIG_BYTES, MenuEntry, read_grub
from local_imager.formats.source import FormatError

# As Talos' imager writes them for ISO (pkg/imager/iso/grub.cfg) and disk (bootloader/grub).
_ISO = b"""set default=0
set timeout=3

insmod all_video

terminal_input console
terminal_output console

menuentry "Talos ISO" {
\tset gfxmode=auto
\tset gfxpayload=text
\tlinux /boot/vmlinuz talos.platform=metal console=tty0 talos.config=http://h/c?u=\\$\\{uuid\\}\\&x
\tinitrd /boot/initramfs.xz
}

menuentry "Reset Talos installation" {
\tset gfxmode=auto
\tset gfxpayload=text
\tlinux /boot/vmlinuz talos.platform=metal talos.experimental.wipe=system
\tinitrd /boot/initramfs.xz
}
"""
_DISK = b"""set default="A - Talos v1.13.0"
set fallback="B - Talos v1.12.1"

set timeout=3
menuentry "A - Talos v1.13.0" {
  set gfxmode=auto
  linux /A/vmlinuz console=ttyS0
  initrd /A/initramfs.xz
}
menuentry "B - Talos v1.12.1" {
  linux /B/vmlinuz console=ttyS1
  initrd /B/initramfs.xz
}
"""
_DEBIAN = rb"""
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
function gfxmode {
	set gfxpayload="${1}"
}
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1234
	echo	'Loading Linux 6.1 ...'
	linux	/vmlinuz-6.1 root=UUID=1234 ro quiet $vt_handoff # and a comment
	initrd	/early.img /initrd.img-6.1
}
submenu 'Advanced options' --id adv {
	menuentry "Recovery (it's here)" --class os {
		linux /vmlinuz-6.1 single "dyndbg=\"file x.c +p\"" \
			'two words'
	}
}
menuentry 'UEFI Firmware Settings' --id='uefi' { fwsetup }
"""


def test_the_entries_of_a_talos_iso() -> None:
    config = read_grub(_ISO)
    iso, reset = config.entries
    assert iso == MenuEntry(
        "Talos ISO",
        kernel="/boot/vmlinuz",
        arguments=("talos.platform=metal", "console=tty0", "talos.config=http://h/c?u=${uuid}&x"),
        initrds=("/boot/initramfs.xz",),
    )
    assert reset.arguments[-1] == "talos.experimental.wipe=system"
    assert (config.default, config.timeout, config.fallback) == ("0", "3", "")
    assert config.default_entry is iso


def test_the_entries_of_a_talos_disk() -> None:
    config = read_grub(_DISK)
    assert [entry.title for entry in config.entries] == ["A - Talos v1.13.0", "B - Talos v1.12.1"]
    assert config.default_entry is config.entries[0]
    assert config.fallback == "B - Talos v1.12.1"
    assert config.entries[1].initrds == ("/B/initramfs.xz",)


def test_what_another_distribution_writes() -> None:
    config = read_grub(_DEBIAN)
    first, recovery, firmware = config.entries
    assert first == MenuEntry(
        "Debian GNU/Linux",
        identifier="gnulinux-simple",
        kernel="/vmlinuz-6.1",
        arguments=("root=UUID=1234", "ro", "quiet", "$vt_handoff"),
        initrds=("/early.img", "/initrd.img-6.1"),
        variables=("vt_handoff",),
        conditional=True,
    )
    assert recovery.menu == ("Advanced options",)
    assert recovery.title == "Recovery (it's here)"
    assert recovery.arguments == ("single", 'dyndbg="file x.c +p"', "two words")
    assert recovery.command_line == r'single "dyndbg=\"file x.c +p\"" "two words"'
    assert (firmware.title, firmware.identifier, firmware.kernel) == (
        "UEFI Firmware Settings",
        "uefi",
        "",
    )
    assert config.default_entry is first
    assert [row.title for row in config.rows] == [first.title, "Advanced options", firmware.title]


@pytest.mark.parametrize(
    ("line", "arguments", "command_line"),
    [
        (b"a b", ("a", "b"), "a b"),
        (rb"a\ b", ("a b",), '"a b"'),
        (rb"a\\b", ("a\\b",), r"a\\b"),
        (rb"'a\x20b'", (r"a\x20b",), r"a\x20b"),
        (rb"'it'\''s'", ("it's",), r"it\'s"),
        (b'a"b c"d', ("ab cd",), '"ab cd"'),
        (rb'"a\b\$c"', (r"a\b$c",), r"a\\b$c"),
        (b"a#b", ("a#b",), "a#b"),
        (b"a;b", ("a",), "a"),
        (b'""', ("",), ""),
        (b"\xff=\xfe", ("\udcff=\udcfe",), "\udcff=\udcfe"),
    ],
)
def test_words_are_what_grub_makes_of_them(
    line: bytes, arguments: tuple[str, ...], command_line: str
) -> None:
    (entry,) = read_grub(b"menuentry x {\nlinux /k " + line + b"\n}\n").entries
    assert entry.arguments == arguments
    assert entry.command_line == command_line


@pytest.mark.parametrize(
    ("default", "title"),
    [("1", "b"), ("b", "b"), ("i", "c"), ("7", "a"), ("gone", "a"), ("${saved}", None)],
)
def test_the_default_is_told_or_not(default: str, title: str | None) -> None:
    text = (
        f'set default="{default}"\nmenuentry a {{\n}}\nmenuentry b {{\n}}\nmenuentry c --id i {{ }}'
    )
    entry = read_grub(text.encode()).default_entry
    assert (entry.title if entry else None) == title


_MENU = """
set default=%s
menuentry One { }
menuentry 'Two' --id two { }
submenu 'More > less' --id more {
  menuentry Three { }
  submenu Deep { menuentry Four --id four { } }
}
menuentry Five { }
if [ $grub_platform = efi ]; then
  menuentry Firmware { fwsetup }
fi
menuentry Six { }
"""


@pytest.mark.parametrize(
    ("default", "title", "why"),
    [
        ("0", "One", ""),
        ("1", "Two", ""),
        ("two", "Two", ""),
        ("3", "Five", ""),
        ("Five", "Five", ""),
        ("Six", "Six", ""),
        ("2", None, "a submenu"),
        ("'more>0'", "Three", ""),
        ("'2>Three'", "Three", ""),
        ("'More >> less>Deep>four'", "Four", ""),
        ("'more>7'", "Three", ""),
        ("'more>1'", None, "a submenu"),
        ("nothing", "One", ""),
        ("''", "One", ""),
        ("4", None, "which entries its menu has"),
        ("5", None, "which entries its menu has"),
        ("Firmware", None, "whether it is there"),
        ('"${saved_entry}"', None, "what $saved_entry holds"),
    ],
)
def test_the_default_among_submenus(default: str, title: str | None, why: str) -> None:
    entry, reason = read_grub((_MENU % default).encode()).choice
    assert (entry.title if entry else None) == title
    assert why in reason and bool(reason) == bool(why)


@pytest.mark.parametrize(
    ("text", "title", "why"),
    [
        (
            "if [ x ]; then\n set default=1\nelse\n set default=0\nfi",
            None,
            "conditions decide over",
        ),
        ("if [ x ]; then set default=1; fi", None, "conditions decide over"),
        ("if [ x ]; then set default=1; fi\nset default=1", "b", ""),
        ("default=1", "b", ""),
        ("function f {\n set default=1\n}", "a", ""),
        ("source /custom.cfg", None, "which entries its menu has"),
        ("source /custom.cfg\nset default=b", "b", ""),
        ("function f {\nmenuentry z { }\n}", None, "which entries its menu has"),
        ("for x in 1 2; do menuentry z { }; done", None, "which entries its menu has"),
        ("if [ x ]; then set timeout=5; fi", "a", ""),
    ],
)
def test_what_decides_before_the_menu(text: str, title: str | None, why: str) -> None:
    entry, reason = read_grub(f"{text}\nmenuentry a {{ }}\nmenuentry b {{ }}\n".encode()).choice
    assert (entry.title if entry else None) == title
    assert why in reason and bool(reason) == bool(why)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"menuentry 'x {", "inside of a quotation"),
        (b'menuentry "x\\', "inside of a quotation"),
        (b"menuentry x {\nlinux /k", "inside of a block"),
        (b"{\n" * 40, "too deep"),
        (b"submenu x {" * 40, "too deep"),
        (b" " * (MAX_CONFIG_BYTES + 1), "larger than any real one"),
    ],
)
def test_damage_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_grub(data)


def test_odd_but_harmless() -> None:
    assert read_grub(b"").entries == ()
    assert read_grub(b"set default=$x").choice == (None, "")
    assert read_grub(b"}}}\nlinux /k\n\\").entries == ()
    assert read_grub(b"menuentry {\nlinux\ninitrd\nset\n}").entries == (MenuEntry(""),)
