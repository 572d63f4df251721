"""The one exception of a run that cannot start or go on."""


class RunError(Exception):
    """A run cannot start or go on: the message says why, and what to do about it."""
