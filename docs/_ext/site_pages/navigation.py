"""The order of the site's pages, as readers ask: why, how to begin, how to reach a goal, what there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

SECTIONS: Mapping[str, Sequence[str]] = {
    "Why and when": ("why", "compare/index", "benchmarks"),
    "Learn": ("installing", "tutorial", "examples"),
    "How to": ("howto/index",),
    "Guides": (
        "handlers",
        "types",
        "resources",
        "waiting",
        "testing",
        "client",
        "protocols",
        "listeners",
        "tls",
        "security",
        "operating",
        "sizing",
        "scaling",
        "telemetry",
    ),
    "Reference": (
        "reference/index",
        "settings",
        "commands",
        "reference/commands",
        "reference/api/index",
        "line-protocol",
        "schema",
        "reference/metrics",
        "reference/log-lines",
        "reference/errors",
    ),
    "Explanation": (
        "how-it-works",
        "connections",
        "fork-safety",
        "reliability",
        "architecture",
        "design-decisions",
    ),
    "Project": (
        "changelog",
        "support",
        "security-policy",
        "contributing",
        "code-of-conduct",
        "releasing",
    ),
}
"""The pages of each part, without those that an index beside them lists."""

_NOT_LISTED = ("index", "source/")


def toctrees(pages: Collection[str]) -> str:
    """Return the navigation for the front page: hidden tables of contents, of the pages that exist.

    Pages that ``SECTIONS`` does not know are the last ones.
    """
    parts = {**SECTIONS, "More": unlisted(pages)}
    return "".join(
        _toctree(f":caption: {caption}", [page for page in listed if page in pages])
        for caption, listed in parts.items()
    )


def contents_of(page: str, pages: Collection[str]) -> str:
    """Return the table of contents of the pages below an index page, or of one that names a folder."""
    folder = page.removesuffix("index") if page.endswith("/index") else f"{page}/"
    below = [one for one in sorted(pages) if _parent(one, pages) == folder and one != page]
    return _toctree(":titlesonly:", [f"/{one}" for one in below if not _is_listed(one)])


def unlisted(pages: Collection[str]) -> list[str]:
    """Return the pages that are in no section, nor below a page that is."""
    return [
        page
        for page in sorted(pages)
        if not page.startswith(_NOT_LISTED) and not _is_listed(page) and not _parent(page, pages)
    ]


def _parent(page: str, pages: Collection[str]) -> str:
    """Return the folder of the nearest page that lists what is below it; "": there is none."""
    folder = page.rpartition("/")[0]
    while folder and not {f"{folder}/index", folder} & {*pages} - {page}:
        folder = folder.rpartition("/")[0]
    return folder and f"{folder}/"


def _is_listed(page: str) -> bool:
    return any(page in listed for listed in SECTIONS.values())


def _toctree(option: str, pages: Sequence[str]) -> str:
    if not pages:
        return ""
    return "\n```{toctree}\n:hidden:\n" + "\n".join([option, "", *pages]) + "\n```\n"
