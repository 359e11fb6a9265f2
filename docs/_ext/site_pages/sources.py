"""Puts together what Sphinx reads: pages of docs/, READMEs of examples, pages made from code, sources."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from site_pages import ROOT, api, commands, errors, log_lines, metrics, navigation
from site_pages.keywords import with_keywords
from site_pages.places import files_of_the_root, page_of, with_links

MADE: Mapping[str, Callable[[], str]] = {
    "reference/commands": commands.page,
    "reference/metrics": metrics.page,
    "reference/log-lines": log_lines.page,
    "reference/errors": errors.page,
    **api.PAGES,
}
"""The pages made from the code."""

_NOT_COPIED = ("_ext", "_static", "__pycache__")
_LEXERS = {
    ".py": "python",
    ".sh": "sh",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".lua": "lua",
    ".cfg": "ini",
    ".go": "go",
    ".js": "js",
    ".service": "ini",
}
_SETTING = re.compile(r"^\| (`(\w+)`) \|", re.MULTILINE)
_IGNORED = re.compile(r"__pycache__|\.(lmdb|db|pyc|so|egg-info)\b")


def written_pages() -> dict[str, Path]:
    """Return the files of the pages that are written by hand, by the names of the pages."""
    files = [
        *files_of_the_root(),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("README.md"),
    ]
    return {page_of(file): file for file in sorted(files) if "_ext" not in file.parts}


def assemble(folder: Path) -> int:
    """Write all that Sphinx reads into a new folder; return how many pages these are."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns(*_NOT_COPIED, "*.md"))
    written = written_pages()
    names = {*written, *MADE}
    linked: set[Path] = set()
    pages = {name: make() for name, make in MADE.items()}
    for name, file in written.items():
        pages[name] = with_links(file.read_text(encoding="utf-8"), file, linked.add)
    pages["settings"] = _SETTING.sub(r"| [\1]{#\2} |", pages["settings"])
    headings = {}
    for name, text in pages.items():
        below = (
            navigation.toctrees(names) if name == "index" else navigation.contents_of(name, names)
        )
        page, headings[name] = with_keywords(name, text)
        _write(folder, name, page + below)
    scorer = (ROOT / "docs" / "_ext" / "scorer.js").read_text(encoding="utf-8")
    (folder / "_scorer.js").write_text(
        f"{scorer}\nconst HEADINGS = {json.dumps(headings)};\n", encoding="utf-8"
    )
    shown = dict(_sources(linked - {*written.values()}))
    for name, text in shown.items():
        _write(folder, name, text)
    return len(pages) + len(shown)


def _write(folder: Path, name: str, text: str) -> None:
    file = folder / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _sources(linked: set[Path]) -> Iterator[tuple[str, str]]:
    """Yield the pages that show files and folders as they are, those of a folder's files included."""
    left, done = sorted(linked), set[str]()
    while left:
        path = left.pop()
        name = page_of(path)
        if name in done or not name.startswith("source/"):
            continue
        done.add(name)
        if path.is_dir():
            inside = [one for one in sorted(path.iterdir()) if not _IGNORED.search(one.name)]
            left += inside
            yield name, _listing(path, inside)
        else:
            yield name, _literal(path)


def _head(path: Path) -> str:
    return f"---\norphan: true\nnosearch: true\n---\n\n# {path.relative_to(ROOT)}\n\n"


def _listing(path: Path, inside: list[Path]) -> str:
    lines = [f"- [`{one.name}{'/' * one.is_dir()}`](/{page_of(one)}.md)\n" for one in inside]
    return _head(path) + "".join(lines)


def _literal(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lexer = _LEXERS.get(path.suffix, "docker" if path.name == "Dockerfile" else "text")
    return f"{_head(path)}{fence}{{code-block}} {lexer}\n:force:\n\n{text}{fence}\n"
