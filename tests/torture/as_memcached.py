"""Run the memcached example with memcached's own options: ``as_memcached.py -p 11211 -m 64``.

What has no counterpart is ignored, so that memcached's tests show what that costs.
"""

from __future__ import annotations

import getopt
import os
import re
import sys
from pathlib import Path

_EXAMPLE = Path(__file__).parents[2] / "examples" / "memcached" / "memcached.py"
_OPTIONS = "p:s:U:l:m:c:a:I:t:u:o:P:b:R:B:e:f:n:D:Y:hVdvMkrFCLWSAXEiZ"  # of memcached
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_HELP = "memcached-debug 1.6.45 of linepool; unix-socket -s"


def size(text: str) -> int:
    """Return the number of bytes of a size such as 2m."""
    match = re.fullmatch(r"([0-9]+)([kmg]?)b?", text.lower())
    return int(match[1]) * _UNITS[match[2]] if match else 0


def command(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of the server and additional environment variables."""
    given = dict(getopt.gnu_getopt(arguments, _OPTIONS)[0])
    environment = {
        "MEMCACHED_MOST_MEMORY": "64M",
        "MEMCACHED_MEMORY": f"{max(1, int(given.get('-m', '64')))}M",
    }
    words = [sys.executable, "-m", "linepool", "run", str(_EXAMPLE), "--workers", "1"]
    if "-s" in given:
        words += ["--bind", f"unix:{given['-s']}"]
    else:
        words += ["--bind", f"{given.get('-l', '127.0.0.1')}:{given.get('-p', '11211')}"]
    if "-a" in given:
        words += ["--unix-mode", given["-a"]]
    if "-I" in given:
        words += ["--max-body-bytes", str(size(given["-I"]))]
    if "-c" in given:
        words += ["--max-connections", given["-c"]]
    return words, environment


def main() -> None:
    """Print help or version, or become the server."""
    if "-h" in sys.argv[1:] or "-V" in sys.argv[1:]:
        print(_HELP)
        return
    words, environment = command(sys.argv[1:])
    os.environ.update(environment)
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
