"""The page on the settings, made from the settings themselves: ``python -m tests.examples.settings_page``."""

from __future__ import annotations

from typing import Any

from linepool.operate.config import option_name
from linepool.settings import FIELDS, written
from tests.servers import ROOT

PAGE = ROOT / "docs" / "settings.md"

_HEAD = """\
# Settings

Every setting can be given in five places; what stands further up wins:

1. as an option of `linepool run`, `linepool check` and a script's own `linepool.run()`:
   `--request-timeout 1.5`
2. as an environment variable: `LINEPOOL_REQUEST_TIMEOUT=1.5`
3. in a file: the one named by `--config FILE`, or else `linepool.toml`, or the table
   `[tool.linepool]` of `pyproject.toml`, in the working directory: `request_timeout = 1.5`
4. in the app: `linepool.App(request_timeout=1.5)`, or `linepool.run(request_timeout=1.5)`
5. the default

`linepool check TARGET` shows the values in force, and where each that is not a default was set. A
wrong name or value is an error before anything is served. Lists (`bind`) are written with blanks or
commas between their items, as a list in a file, and by giving the option several times.

"""


def page() -> str:
    """Return the page."""
    rows = [("setting", "default", "unit", "meaning"), ("---",) * 4]
    rows += [
        (f"`{name}`", _default(name, field), field.metadata["unit"], field.metadata["doc"])
        for name, field in FIELDS.items()
    ]
    return _HEAD + "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows)


def option_names() -> list[str]:
    """Return the options that ``linepool run --help`` must show."""
    return [option_name(name) for name in FIELDS]


def _default(name: str, field: Any) -> str:
    shown = "1:max(4, 4 x CPUs)" if name == "workers" else written(name, field.default)
    return f"`{shown}`" if shown else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
