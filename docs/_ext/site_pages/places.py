"""Where a file of the repository is in the site, and what a link to it becomes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from site_pages import ROOT

_RENAMED = {
    "README.md": "index",
    "CHANGELOG.md": "changelog",
    "CODE_OF_CONDUCT.md": "code-of-conduct",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security-policy",
}
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`* *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_PICTURES = (".svg", ".png")


def files_of_the_root() -> list[Path]:
    """Return the files beside docs/ that are pages of the site; the front page has a text of its own."""
    return [ROOT / name for name in _RENAMED if name != "README.md" and (ROOT / name).is_file()]


def page_of(path: Path) -> str:
    """Return the name of the page on which a file or a folder of the repository is shown.

    Pages of docs/ are at the top, READMEs below ``examples/``; all else is shown as it is below ``source/``.
    """
    if (path / "README.md").is_file() and path != ROOT:
        path = path / "README.md"
    name = path.relative_to(ROOT).as_posix()
    if name in _RENAMED:
        return _RENAMED[name]
    if path.suffix == ".md" and name.startswith("docs/"):
        return name.removeprefix("docs/").removesuffix(".md")
    if name.startswith("examples/") and name.endswith("/README.md"):
        return name.removesuffix("/README.md")
    return f"source/{name}/index" if path.is_dir() else f"source/{name}"


def with_links(text: str, origin: Path, note: Callable[[Path], None]) -> str:
    """Return a page with links that are right in the site.

    The front page has other headings than the README, so a link to one of these leads to the whole page.

    Args:
        text: The page.
        origin: The file that has the page.
        note: Is called with each file and folder that is linked.
    """
    page = page_of(origin)

    def link(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(origin.parent / found[1]))
        if path.suffix in _PICTURES or not path.exists():
            return found[0]  # Sphinx says what is wrong with a link to nothing
        note(path)
        target = os.path.relpath(page_of(path) + ".md", os.path.dirname(page) or ".")
        return target + (found[2] or "") * (path.name != "README.md" or path.parent != ROOT)

    parts = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])
