"""The tests of the scheme accept with no system call that only Linux has: what macOS and the BSDs run."""

from __future__ import annotations

import os
import subprocess
import sys

from linepool.kernel import features
from tests.servers import ROOT


def test_portable():
    words = [sys.executable, "-m", "pytest", "-q", "-k", "accept", "-n", "2", "tests"]
    environment = {**os.environ, features.VARIABLE: "1"}
    ended = subprocess.run(words, cwd=ROOT, env=environment, check=False)
    assert ended.returncode == 0
