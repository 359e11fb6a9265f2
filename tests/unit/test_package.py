"""The package: its public names, and what importing it loads."""

import subprocess
import sys

import linepool


def test_every_public_name_exists():
    assert all(hasattr(linepool, name) for name in linepool.__all__)


def test_importing_the_package_loads_no_heavy_modules():
    code = "import sys, linepool; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"argparse", "asyncio", "ssl", "cattrs", "multiprocessing", "tomllib"} & set(loaded)
