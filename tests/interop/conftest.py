"""Every test in this folder fails if a key of a config.json is unknown, unless the test expects it."""

import logging

import pytest

from memgpt_jax.interop.families.settings import logger


class Messages(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def unknown_keys():
    """The warnings about unknown keys; a test that expects them clears the list."""
    handler = Messages()
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)
    assert not handler.messages
