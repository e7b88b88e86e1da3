"""Faults of the operating system: what is the host's, with its exit code and a hint."""

from __future__ import annotations

import errno
import os

import pytest

from local_imager.errors import ExitCode, StoreError
from local_imager.oci.durable import explained


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [
        (errno.ENOSPC, "disk-full", "free some space"),
        (errno.EDQUOT, "disk-full", "quota"),
        (errno.EROFS, "store-failed", "read-only"),
        (errno.EACCES, "store-failed", "check who owns"),
        (errno.EIO, "store-failed", "system log"),
    ],
)
def test_no_room_and_no_rights_are_the_hosts_fault(number: int, code: str, hint: str) -> None:
    with pytest.raises(StoreError, match="could not write it: ") as caught, explained("write it"):
        raise OSError(number, os.strerror(number))
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.HOST_UNABLE, code)
    assert hint in caught.value.hint


def test_other_faults_fail_without_blame() -> None:
    with pytest.raises(StoreError) as caught, explained("write it"):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.FAILED, "store-failed")
