"""Pictures of the site, made with Chromium as the tests drive it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.torture.browser import PHONE, WIDE, browser

_PAGES = ("index", "why", "settings", "reference/commands", "reference/api/apps")


def take(site: Path, target: Path) -> None:
    """Leave pictures of pages in a folder: wide and on a phone, light and dark."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as chromium:
        for page in _PAGES:
            for size, width in ((WIDE, "wide"), (PHONE, "phone")):
                for theme in ("light", "dark"):
                    chromium.open((site / f"{page}.html").as_uri(), size, theme)
                    name = f"{page.replace('/', '-')}-{width}-{theme}.png"
                    (target / name).write_bytes(chromium.picture())
    print(f"pictures: {target}")
