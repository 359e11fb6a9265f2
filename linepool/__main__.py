"""The program ``linepool``, also as ``python -m linepool``."""

import gc
import sys

from linepool.kernel.way_back import with_way_back


def main() -> int:
    """Run the command line; return the exit status."""
    status = with_way_back(_command_line)
    gc.freeze()  # the interpreter would look through all that was imported, twice, before it exits
    return status


def _command_line() -> int:
    from linepool import cli  # noqa: PLC0415

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
