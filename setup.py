"""The compiled core: neither setup.cfg nor, beside it, pyproject.toml can declare extension modules.

Each linepool/core/*.pyx becomes an extension module. Where one cannot be compiled, the build warns and goes
on; linepool then runs in pure Python. With LINEPOOL_PURE=1 the build leaves them out (a py3-none-any wheel);
with LINEPOOL_PURE=0 it fails where one cannot be compiled.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

CORE = Path("linepool/core")
choice = os.environ.get("LINEPOOL_PURE", "").strip()
pure = choice not in ("", "0") and "sdist" not in sys.argv

setup(
    ext_modules=[
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            depends=sorted(map(str, CORE.glob("*.pxd"))),
            optional=choice != "0",
        )
        for source in sorted(CORE.glob("*.pyx"))
        if not pure
    ]
)
