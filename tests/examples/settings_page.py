"""Generates docs/settings.md from the settings: ``python -m tests.examples.settings_page``."""

from __future__ import annotations

from typing import Any

from linepool.operate.config import option_name
from linepool.settings import FIELDS, written
from tests.servers import ROOT

PAGE = ROOT / "docs" / "settings.md"

_HEAD = """\
# Settings

A setting can come from six places, in order of precedence:

1. an option of `linepool run`, of `linepool check`, or of a script that calls `linepool.run()`:
   `--request-timeout 1.5`
2. an environment variable: `LINEPOOL_REQUEST_TIMEOUT=1.5`; for `bind`, also LISTEN_FDS of systemd
3. the same variables in files that `--env-file FILE` names
4. a file: the one named by `--config FILE`, otherwise `linepool.toml` or the table `[tool.linepool]`
   of `pyproject.toml` in the working directory: `request_timeout = 1.5`
5. the app: `linepool.App(request_timeout=1.5)` or `linepool.run(request_timeout=1.5)`; not for the last
   settings below, from `user` on, which count before the app is loaded
6. the default

`linepool check TARGET --settings` shows the effective values, each with its source. An unknown name or an
invalid value is an error before anything is served. To give several
addresses in `bind`, separate them with spaces or commas, use a list in a file, or repeat the option.

An empty variable counts as not set. Other variables may begin with `LINEPOOL_` too: what Kubernetes sets
for a Service named `linepool` or `linepool-web`, container links, an installer. They are ignored; one
that is
nearly a setting (`LINEPOOL_WROKERS`) is named in a warning.

## What is served

`target = "shop.stock:app"` in the file is what `linepool run`, `check`, `schema`, `stub` and `unit` take if
they are given no TARGET. A list serves several apps: `target = ["shop:main", "shop:admin@127.0.0.1:7001"]`.
`linepool new shop` makes a project in which all of these need none.

## Files of variables

`--env-file FILE` (repeatable) reads variables in the syntax of
[python-dotenv](https://github.com/theskumar/python-dotenv):
`NAME=VALUE`, quotes, comments, `export`. The app sees them in `os.environ`, and those that begin with
`LINEPOOL_` are
settings. The environment itself overrides them. A reload reads them anew. Needs `pip install
'linepool[dotenv]'`.

## Settings of the app itself

The table `[app]` of the file (`[tool.linepool.app]` in `pyproject.toml`) fills a class of the app's own,
made with
attrs or dataclasses:

```python
import attrs
import linepool

@linepool.config
@attrs.frozen
class Shop:
    currency: str = "EUR"
    max_items: int = attrs.field(default=100, validator=attrs.validators.gt(0))

@linepool.handler
def limit(shop: Shop) -> str:
    return f"{shop.max_items} {shop.currency}"
```

```toml
workers = 4

[app]
currency = "CHF"
```

Handlers, hooks and resources that annotate a parameter with the class get the object. Keys, types,
required keys
(without a default) and the class's own validators are checked when the app is loaded, and by `linepool
check`; a
wrong one is refused with its key. A reload fills the class anew. In tests, `app.configure({"currency":
"CHF"})` stands
for the table.

## A schema for editors

`linepool config-schema > linepool.schema.json` writes a JSON Schema. Editors with taplo (Even Better
TOML) complete and
check a `linepool.toml` whose first line is `#:schema ./linepool.schema.json`. In Python,
`linepool.App(...)` and
`linepool.run(...)` have typed keywords: a type checker finds `wrokers=4`.

## All settings

CPUs are those that the process may use: its affinity, and the CPU quotas of its cgroup and those above it
(a container's limit); part of a CPU counts as one.

"""


def page() -> str:
    """Return the text of the page."""
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
