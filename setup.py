"""What setup.cfg cannot declare: the compiled core, the README as indexes show it, reproducible archives.

Each linepool/core/*.pyx becomes an extension module. Where one cannot be compiled, the build warns and goes
on; linepool then runs in pure Python. With LINEPOOL_PURE=1 the build leaves them out (a py3-none-any wheel);
with LINEPOOL_PURE=0 it fails where one cannot be compiled.
"""

import configparser
import gzip
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

CORE = Path("linepool/core")
FIRST_TIME = 315532800  # 1980, the first year that archives of every kind can write
choice = os.environ.get("LINEPOOL_PURE", "").strip()
pure = choice not in ("", "0") and "sdist" not in sys.argv


def described() -> str:
    """Return README.md with links that also work outside of the repository."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read("setup.cfg", encoding="utf-8")
    urls = dict(re.findall(r"(\w+) = (\S+)", settings["metadata"]["project_urls"]))
    version = re.search('__version__ = "(.+)"', Path("linepool/version.py").read_text("utf-8"))
    assert version is not None

    def absolute(link: re.Match[str]) -> str:
        target = link[1] if link[1][0] != "#" else f"README.md{link[1]}"
        kind = "raw" if target.endswith((".svg", ".png")) else "blob"
        return f"]({urls['Source']}/{kind}/v{version[1]}/{target})"

    return re.sub(r"\]\((?!\w+:)([^)\s]+)\)", absolute, Path("README.md").read_text("utf-8"))


class ReproducibleSdist(sdist):
    """Make archives whose bytes depend on their files alone, and on SOURCE_DATE_EPOCH."""

    def make_archive(
        self,
        base_name: Any,
        format: Any,
        root_dir: Any = None,
        base_dir: Any = None,
        owner: Any = None,
        group: Any = None,
    ) -> Any:
        """Make a .tar.gz: files in order, no owners, one time, and two kinds of permissions."""
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        time = int(os.environ.get("SOURCE_DATE_EPOCH", FIRST_TIME))

        def same(member: tarfile.TarInfo) -> tarfile.TarInfo:
            is_program = member.isdir() or member.mode & 0o100
            return member.replace(
                mtime=time,
                mode=0o755 if is_program else 0o644,
                uid=0,
                gid=0,
                uname="",
                gname="",
                deep=False,
            )

        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=time) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=same)  # a directory's files in the order of their names
        return path


setup(
    long_description=described(),
    cmdclass={"sdist": ReproducibleSdist},
    ext_modules=[
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            depends=sorted(map(str, CORE.glob("*.pxd"))),
            optional=choice != "0",
        )
        for source in sorted(CORE.glob("*.pyx"))
        if not pure
    ],
)
