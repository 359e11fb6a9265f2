"""What several unit tests need."""

import logging

import pytest

from linepool.operate import logs
from linepool.settings import Settings


@pytest.fixture
def logger():
    """Give the logger of a server; logging is as before afterwards."""
    logger = logging.getLogger("linepool")
    before = (logger.__class__, logger.handlers[:], logging.lastResort, logger.propagate)
    handlers = logging.getLogger().handlers[:]
    logs.set_up(Settings())
    logging.getLogger().handlers[:] = []
    yield logger
    logger.__class__, logger.handlers[:], logging.lastResort, logger.propagate = before
    logging.getLogger().handlers[:] = handlers
