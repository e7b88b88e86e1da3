"""Asking the gate about many images and telling of all that it refuses at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

from local_imager.errors import LocalImagerError, NotFound, VerificationRefused
from local_imager.oci.model import Reference
from local_imager.sources.parallel import run_all
from local_imager.sources.reasons import Reason

T = TypeVar("T")
_NEAR_SIDE: Final = "nothing was written"
_MAX_HINTS: Final = 3


def all_or_refusal(
    images: Sequence[Reference], tasks: Sequence[Callable[[], T]], jobs: int
) -> Mapping[Reference, T]:
    """Return what each image's task gives, or raise once for every image refused or missing.

    Raises :class:`VerificationRefused` (``images-refused``) when one is refused,
    :class:`NotFound` when some are only missing, and at once whatever else a task raises.
    """
    answers = run_all([partial(_answer, task) for task in tasks], jobs)
    faults: dict[Reference, LocalImagerError] = {}
    found: dict[Reference, T] = {}
    for image, (result, fault) in zip(images, answers, strict=True):
        if fault is not None:
            faults[image] = fault
        else:
            found[image] = result[0]
    if faults:
        raise _refusal(faults, len(images))
    return found


def _answer(task: Callable[[], T]) -> tuple[list[T], LocalImagerError | None]:
    try:
        return [task()], None
    except (VerificationRefused, NotFound) as error:
        return [], error


def _refusal(faults: Mapping[Reference, LocalImagerError], asked: int) -> LocalImagerError:
    refused = {i: e for i, e in faults.items() if isinstance(e, VerificationRefused)}
    lines = [f"{image}: {error.message}" for image, error in faults.items()]
    listed = "".join(f"\n  - {line}" for line in lines)
    hints = [_policy_hint(refused)] if _uncovered(refused) else []
    others = (error.hint for error in faults.values() if error.code != Reason.NO_POLICY.code)
    hints += [hint for hint in dict.fromkeys(others) if hint]
    hint = "; ".join(hints[:_MAX_HINTS])
    if not refused:
        message = f"{len(faults)} of {asked} images cannot be had; {_NEAR_SIDE}:{listed}"
        return NotFound(message, hint=hint)
    return VerificationRefused(
        f"{len(faults)} of {asked} images are refused; {_NEAR_SIDE}:{listed}",
        hint=hint,
        code="images-refused",
        image=", ".join(str(image) for image in refused),
        tried=tuple(lines),
    )


def _uncovered(refused: Mapping[Reference, VerificationRefused]) -> tuple[Reference, ...]:
    return tuple(i for i, error in refused.items() if error.code == Reason.NO_POLICY.code)


def _policy_hint(refused: Mapping[Reference, VerificationRefused]) -> str:
    """Say which entries would cover the images: one for each registry, its repositories below."""
    patterns = dict.fromkeys(f'"{image.registry}/**"' for image in _uncovered(refused))
    return (
        "say whose signature you want on them: in your own settings, or in a file for --policy, "
        f"add a [[trust]] entry with pattern = {' and one with '.join(patterns)}, and either "
        "key = FILE or issuer and identity"
    )
