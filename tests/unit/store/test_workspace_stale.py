"""Working directories of killed builds go with the next build, not an hour later."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from local_imager.store.store import Store

BUILD = """
import sys, time
from pathlib import Path
from local_imager.store.store import Store
with Store.open(Path(sys.argv[1])).workspace() as folder:
    (folder / "disk.raw").write_bytes(b"x" * 4096)
    print(folder, flush=True)
    time.sleep(60)
"""


def test_a_killed_builds_folder_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", BUILD, str(tmp_path / "store")]
    builds = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, living = (Path((build.stdout or sys.stdin).readline().strip()) for build in builds)
        builds[0].send_signal(signal.SIGKILL)
        builds[0].wait()
        with Store.open(tmp_path / "store").workspace() as mine:
            assert not killed.exists()
            assert (living / "disk.raw").exists()
            assert mine.is_dir()
    finally:
        for build in builds:
            build.kill()
            build.communicate()
