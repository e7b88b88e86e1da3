"""``local-imager bundle``: one file that carries all that a site without network needs."""

from __future__ import annotations

from typing import ClassVar, Final

import click

from local_imager.cli.main import LazyGroup

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "create": ("bundle_create:create", "Make a bundle of images, assets, trust and lock."),
    "check": ("bundle_check:check", "Prove before travel that nothing is missing for a build."),
    "verify": ("bundle_verify:verify", "Read files once and name every fault; needs no store."),
    "import": ("bundle_import:import_", "Verify a bundle and bring it into the store."),
    "inspect": ("bundle_inspect:inspect", "Show what a bundle holds."),
    "diff": ("bundle_diff:diff", "Show what two bundles differ in."),
}


class BundleGroup(LazyGroup):
    """The subcommands, imported when they are used."""

    table: ClassVar = COMMANDS
    help_command: ClassVar = "local-imager bundle --help"


@click.group("bundle", cls=BundleGroup)
def bundle() -> None:
    """Carry images, assets and trust over an air gap: one file, or a set of parts.

    On the near side: create, check. On the far side: verify, import. The file is a tar of an OCI
    layout, which skopeo and crane read too.
    """
