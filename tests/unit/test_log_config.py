"""Handlers of a file for dictConfig that write to standard error."""

import contextlib
import logging
import os
from collections.abc import Iterator

from linepool.operate import log_config, logs
from linepool.settings import Settings

CONFIG = """
[formatters.short]
format = "%(levelname)s %(message)s"
[handlers.err]
class = "logging.StreamHandler"
formatter = "short"
stream = "ext://tests.unit.test_log_config.ERR"
level = "WARNING"
[loggers.linepool]
handlers = ["err"]
propagate = false
"""
ERR = open(2, "w", closefd=False)  # noqa: SIM115 - pytest has another file as sys.stderr


@contextlib.contextmanager
def standard_error_read_at() -> Iterator[int]:
    """Make standard error a pipe; give the end that reads it, which does not block."""
    kept = os.dup(2)
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.dup2(write, 2)
    os.close(write)
    try:
        yield read
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(read)


def test_a_handler_for_standard_error_keeps_its_form_and_never_blocks(tmp_path, logger):
    (tmp_path / "log.toml").write_text(CONFIG)
    logs.configure(Settings(log_limit=0))
    log_config.apply(str(tmp_path / "log.toml"))
    with standard_error_read_at() as read_end:
        write_more_than_is_read(logger, read_end)


def write_more_than_is_read(logger: logging.Logger, read_end: int) -> None:
    logger.warning("first x=%d", 1)
    logger.info("below the level of the handler, so linepool's own handler takes it")
    first, second = os.read(read_end, 4096).decode().splitlines()
    assert first == "WARNING first x=1"
    assert second.endswith(
        "Z INFO    below the level of the handler, so linepool's own handler takes it"
    )

    for number in range(1000):
        logger.warning("many x=%d %s", number, "." * 1000)
    lines = os.read(read_end, 2**20).decode().splitlines()
    assert len(lines) < 100
    logger.warning("last")
    dropped, last = os.read(read_end, 4096).decode().splitlines()[-2:]
    assert dropped.startswith("WARNING ")
    assert dropped.endswith(" log records dropped: stderr is not being read")
    assert last == "WARNING last"
