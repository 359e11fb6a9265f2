"""The program ``linepool``, also as ``python -m linepool``."""

import sys


def main() -> int:
    """Run the command line; return the exit status."""
    if sys.argv[1:2] == ["health"]:  # run every few seconds, so without what other commands need
        from linepool.operate import health  # noqa: PLC0415

        return health.main(sys.argv[2:])
    from linepool.kernel.way_back import with_way_back  # noqa: PLC0415

    return with_way_back(_command_line)


def _command_line() -> int:
    from linepool import cli  # noqa: PLC0415

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
