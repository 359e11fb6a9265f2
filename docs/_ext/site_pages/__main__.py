"""Builds the site in build/docs/html, and checks it: ``python -m site_pages``.

With ``--screenshots DIR`` it also leaves pictures of the front page and others there, made with Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from site_pages import ROOT, check_links
from site_pages.sources import assemble

BUILD = ROOT / "build" / "docs"
HTML = BUILD / "html"


def main() -> int:
    """Build and check; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="./dev docs", description="Build the documentation site, and check it."
    )
    parser.add_argument("--screenshots", metavar="DIR", type=Path, help="take pictures of pages")
    options = parser.parse_args()
    begun = time.monotonic()
    pages = assemble(BUILD / "source")
    status = build(BUILD / "source", HTML)
    if not (HTML / "index.html").is_file():
        return status
    size = sum(file.stat().st_size for file in HTML.rglob("*") if file.is_file())
    print(
        f"{pages} pages, {size / 1e6:.1f} MB, {time.monotonic() - begun:.1f} s: {HTML}/index.html"
    )
    if options.screenshots:
        from site_pages.screenshots import take  # noqa: PLC0415 - it needs the tests' browser

        take(HTML, options.screenshots)
    return check_links.report(HTML) or status


def build(source: Path, target: Path) -> int:
    """Have Sphinx build the pages anew; a warning is an error. Return its exit status."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-j", "2"]
    command += [
        "-c",
        str(ROOT / "docs"),
        "-d",
        str(BUILD / "doctrees"),
        "-E",
        str(source),
        str(target),
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
