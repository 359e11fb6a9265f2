"""The pages in docs/compare: their figures come from a run, their code from the files of the services.

A page has blocks such as ``<!-- figures: hang -->`` or ``<!-- code: work.py -->``, which end with
``<!-- end -->``. As a script, this brings code and its numbers of lines up to date; only
``./dev bench comparisons --write`` changes figures.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Mapping, Sequence

from benchmarks import harness
from benchmarks.comparisons import tables
from benchmarks.comparisons.contenders import OURS, SERVICES, Contender, all_contenders
from benchmarks.comparisons.trials import Report

PAGES = harness.HERE.parent / "docs" / "compare"
BLOCK = re.compile(r"<!-- (figures|code|lines|settings): (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
_LAYOUT |= {tokenize.ENCODING, tokenize.ENDMARKER}


def code_lines(name: str) -> int:
    """Return how many lines of a service have code: no blank lines, comments and docstrings."""
    text = (SERVICES / name).read_text(encoding="utf-8")
    if name.endswith(".lua"):
        return sum(
            bool(line.strip()) and not line.lstrip().startswith(("--", "#!"))
            for line in text.splitlines()
        )
    found: set[int] = set()
    begins = True  # a statement
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _LAYOUT:
            begins = begins or token.type in (tokenize.NEWLINE, tokenize.INDENT)
            continue
        if not (begins and token.type == tokenize.STRING):
            found.update(range(token.start[0], token.end[0] + 1))
        begins = False
    return len(found)


def with_blocks(text: str, kind: str, content: Callable[[str], str | None]) -> str:
    """Return a page with new content in its blocks of one kind.

    Args:
        text: The page.
        kind: figures, code, lines or settings.
        content: From the name of a block to its content; None: it stays as it is.
    """

    def replaced(match: re.Match[str]) -> str:
        new = content(match[2]) if match[1] == kind else None
        return match[0] if new is None else f"<!-- {kind}: {match[2]} -->\n{new}\n<!-- end -->"

    return BLOCK.sub(replaced, text)


def with_code(text: str) -> str:
    """Return a page with the code of the services as it is in their files, and their settings."""
    for kind, content in (("code", _code), ("lines", _lines), ("settings", _settings)):
        text = with_blocks(text, kind, content)
    return text


def _code(name: str) -> str:
    language = "lua" if name.endswith(".lua") else "python"
    return f"```{language}\n{(SERVICES / name).read_text(encoding='utf-8')}```"


def _lines(page: str) -> str:
    ours, *others = all_contenders()
    peers = {one.file: one for one in others if page in (one.page, "all")}
    rows = [(_titles(others, file), f"`{file}`", code_lines(file)) for file in peers]
    rows.append((OURS, f"`{ours.file}`", code_lines(ours.file)))
    return harness.table(("server", "file", "lines of code"), rows)


def _settings(page: str) -> str:
    ours, *others = all_contenders()
    shown = [*(one for one in others if one.page == page), ours]
    return "\n".join(f"- {one.title}: {one.settings}" for one in shown)


def _titles(contenders: Sequence[Contender], file: str) -> str:
    return ", ".join(one.title for one in contenders if one.file == file)


def blocks_of(page: str, reports: Sequence[Report], conditions: str) -> Mapping[str, str]:
    """Return the figures of a page by the names of their blocks."""
    ours = next(report for report in reports if report.contender.name == OURS)
    peers = [report for report in reports if report.contender.page == page]
    found = {"conditions": conditions, "all": tables.overview(reports, code_lines)}
    if peers:
        found |= {
            name: tables.table(facts, ours, peers) for name, (_, facts) in tables.SECTIONS.items()
        }
    return found


def write_figures(reports: Sequence[Report], conditions: str) -> None:
    """Write the figures of one run into all pages."""
    for path in sorted(PAGES.glob("*.md")):
        found = blocks_of(path.stem, reports, conditions)
        text = with_blocks(path.read_text(encoding="utf-8"), "figures", found.get)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(with_code(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
