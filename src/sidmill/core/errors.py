"""The one class for mistakes that a user can fix."""

from sidmill.core.terminal import safe_lines


class SidmillError(Exception):
    """A mistake in the input or the settings.

    The message says what was found, where, and what to change. A workflow script that meets one
    ends with exit code 2 and no traceback. What the message quotes cannot act on a terminal, and
    can be written to any log: control characters and lone surrogates are escaped.
    """

    def __init__(self, message: object = "") -> None:
        """Take the message; line feeds part its lines."""
        super().__init__(safe_lines(message))
