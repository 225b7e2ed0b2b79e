"""Errors a user can act on. The command line prints them as one line; all others are bugs and keep their traceback."""

from pathlib import Path


class HorseshoeError(Exception):
    """Something the user gave cannot be used; the message says what and what would be valid."""


class ConfigurationError(HorseshoeError):
    """A value in a configuration is missing, unknown, of the wrong type or out of range.

    Attributes:
        file: where the value was read, or None if it did not come from a file.
        field: dotted name of the value, empty for the whole document.
        message: what is wrong and what would be valid.
    """

    def __init__(self, file: str | Path | None, field: str, message: str) -> None:
        self.file = None if file is None else str(file)
        self.field = field
        self.message = message
        super().__init__(": ".join(part for part in (self.file, field, message) if part))
