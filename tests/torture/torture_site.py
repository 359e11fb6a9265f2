"""The documentation site in Chromium: what a search finds first, and what the pages ask for."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.torture.browser import PHONE, WIDE, Browser, browser

HITS = "[...document.querySelectorAll('#search-results ul.search > li > a')]"
SUMMARY = "document.querySelector('#search-results .search-summary')?.textContent ?? ''"


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_: object) -> None:
        """Do nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Build the site, with no warning and no broken link, and serve it; return its address."""
    done = subprocess.run(
        ["./dev", "docs"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken, " in done.stdout
    handler = partial(QuietHandler, directory=str(ROOT / "build" / "docs" / "html"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    """Give a browser."""
    with browser(tmp_path / "chromium") as found:
        yield found


def hits(page: Browser, site: str, words: str) -> list[str]:
    """Return the pages that a search finds, best first."""
    page.open(f"{site}/search.html?q={words}")
    page.until(SUMMARY, lambda text: text.startswith("Search finished"))
    found: list[str] = page.value(f"{HITS}.map(one => one.getAttribute('href').split('?')[0])")
    return found


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("timeout", "operating.html#requests-that-run-too-long"),
        ("deploy", "howto/zero-downtime.html"),
        ("redis", "examples/redis.html"),
    ],
)
def test_a_search_finds_first_what_a_reader_wants(chromium, site, words, wanted):
    found = hits(chromium, site, words)
    assert found[0].startswith(wanted), found[:8]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("page", ["index.html", "settings.html", "reference/api/apps.html"])
def test_a_page_fits_its_window_and_asks_no_other_host(chromium, site, page, size, theme):
    chromium.open(f"{site}/{page}", size, theme)

    assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.complaints == []
    assert all(one.startswith((f"{site}/", "data:")) for one in chromium.asked), chromium.asked
