"""Checks the links of the built site: each page and each anchor that one leads to must exist."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

_LINKS = {
    "a": "href",
    "link": "href",
    "img": "src",
    "script": "src",
    "iframe": "src",
    "source": "src",
}


class Page(HTMLParser):
    """What a page links, loads, and has anchors for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element links or is named."""
        given = dict(attrs)
        self.anchors |= {name for name in (given.get("id"), given.get("name")) if name}
        target = given.get(_LINKS.get(tag, ""))
        if target:
            (self.links if tag == "a" else self.loads).append(target)


@frozen
class Found:
    """What was found in a site."""

    checked: int
    broken: list[str] = field(factory=list)
    external: Counter[str] = field(factory=Counter)
    loaded: list[str] = field(factory=list)  # from other hosts


def check(site: Path) -> Found:
    """Check all links of all pages of a site; those to other hosts are listed, not asked for."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    checked = 0
    found = Found(0)
    for path, page in pages.items():
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto") or parts.netloc:
                found.external[target] += 1
                if target in page.loads:
                    found.loaded.append(f"{path.relative_to(site)}: {target}")
            elif parts.scheme != "data":
                checked += 1
                if why := _broken(pages, path, unquote(parts.path), unquote(parts.fragment)):
                    found.broken.append(f"{path.relative_to(site)}: {target}: {why}")
    return Found(checked, found.broken, found.external, found.loaded)


def _broken(pages: dict[Path, Page], origin: Path, path: str, anchor: str) -> str:
    """Return what is wrong with a link; "": nothing."""
    target = (origin.parent / path).resolve() if path else origin
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "there is no such file"
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "the page has no such anchor"
    return ""


def report(site: Path) -> int:
    """Print what is wrong with a site's links; return the exit status."""
    found = check(site)
    for target, count in sorted(found.external.items()):
        print(f"not asked for: {target}" + f" ({count} times)" * (count > 1))
    for one in found.broken:
        print(f"broken: {one}")
    for one in found.loaded:
        print(f"loaded from another host: {one}")
    print(
        f"{found.checked} links checked, {len(found.broken)} broken, {len(found.external)} to other hosts"
    )
    return 1 if found.broken or found.loaded else 0
