"""Secure Boot: what the EFI programs in a file are signed with, and what would be enrolled."""

from __future__ import annotations

from local_imager.deliver.inspect.meaning import SecureBoot, SigningState
from local_imager.deliver.inspect.parts import Part
from local_imager.deliver.inspect.places import content_of
from local_imager.events import printable

_SETTING = "secure-boot-enroll"


def secure_boot_of(tree: Part) -> SecureBoot:
    """Return the state of all EFI programs of a file together.

    A kernel with an EFI stub inside of a unified kernel image or beside a boot loader does not
    count: no firmware starts it.
    """
    states: list[SigningState] = []
    signers: dict[str, None] = {}
    strangers: dict[str, None] = {}
    policies = False
    enrols: list[str] = []
    setting = ""
    for path, part in tree.walk():
        if content_of(part) in ("uki", "pe"):
            states.append(_state_of(part))
            signers |= dict.fromkeys(_signers(part, fitting=True))
            strangers |= dict.fromkeys(_signers(part, fitting=False))
            policies = policies or bool(part.facts.get("pcr_verifies"))
        elif part.name.lower().endswith(".auth") and "/keys/" in f"/{path.lower()}":
            enrols.append(part.name)
        elif part.name.lower() == "loader.conf" and part.text:
            setting = _enroll_setting(part.text) or setting
    return SecureBoot(
        state=_together(states),
        signers=tuple(signers),
        not_fitting=tuple(strangers),
        pcr_signed=policies,
        enrols=tuple(dict.fromkeys(enrols)),
        enroll_keys=setting,
    )


def _state_of(program: Part) -> SigningState:
    signatures = [part for part in program.children if part.kind == "pe-signature"]
    if not signatures:
        return "unsigned"
    return "signed" if any(map(_fits, signatures)) else "broken"


def _fits(signature: Part) -> bool:
    """Whether a signature is one of the bytes that it stands behind, and holds by itself."""
    return bool(signature.facts.get("digest_matches")) and bool(signature.facts.get("verifies"))


def _signers(program: Part, *, fitting: bool) -> list[str]:
    """Return who signed the program, or whom the signatures name that do not fit it: anybody can
    put one of another file behind it."""
    return [
        str(part.facts["signer"])
        for part in program.children
        if part.kind == "pe-signature" and "signer" in part.facts and _fits(part) is fitting
    ]


def _together(states: list[SigningState]) -> SigningState:
    if not states:
        return "not-applicable"
    if "broken" in states:
        return "broken"
    if len(set(states)) > 1:
        return "partly-signed"
    return states[0]


def _enroll_setting(text: str) -> str:
    """Return the setting of systemd-boot's loader.conf: off, manual, if-safe or force."""
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == _SETTING:
            return printable(value.strip(), limit=80)
    return ""
