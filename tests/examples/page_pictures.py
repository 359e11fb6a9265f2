"""Takes the pictures of the page in docs/pictures, with Chromium: ``python -m tests.examples.page_pictures``.

Each shows a scene of ``page_scenes``, which is always the same, so a picture changes only with the page.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.examples.page_scenes import WALL, Scene, played
from tests.examples.pictures import PICTURES
from tests.torture.browser import PHONE, WIDE, Browser, browser

_COLOURS = 256  # enough for a page that has few; half the size
SHOTS = {
    "page-quiet": ("quiet", WIDE, "light"),
    "page-saturated": ("saturated", WIDE, "light"),
    "page-kills": ("kills", WIDE, "dark"),
    "page-phone": ("saturated", PHONE, "dark"),
}


def main() -> None:
    """Write the pictures."""
    place = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # its processes may not be gone
    with place as name, browser(Path(name)) as chromium:
        for picture, (scene, size, theme) in SHOTS.items():
            (PICTURES / f"{picture}.png").write_bytes(shot(chromium, scene, size, theme))


def shot(chromium: Browser, name: str, size: tuple[int, int], theme: str) -> bytes:
    """Return a picture of a scene."""
    with played(Scene(name)) as exporter:
        chromium.open(exporter.address, size, theme)
        chromium.until(
            "document.querySelectorAll('#commands tbody tr').length", lambda count: count == 5
        )
        chromium.value("document.querySelector('details')?.setAttribute('open', ''); 0")
        clock = f"new Date({WALL * 1000}).toLocaleTimeString('en-GB')"
        chromium.value(f"clearTimeout(timer); isAsking = true; say($('live'), {clock}); 0")
        picture = Image.open(io.BytesIO(chromium.picture())).convert("RGB")
        small = io.BytesIO()
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        return small.getvalue()


if __name__ == "__main__":
    main()
