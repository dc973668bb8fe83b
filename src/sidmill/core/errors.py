"""The exception for mistakes that a user can fix."""

from sidmill.core.terminal import safe_lines


class SidmillError(Exception):
    """A mistake in the input or the settings.

    The message says what was found, where, and what to change. A workflow script that raises it
    ends with exit code 2 and no traceback. Control characters and lone surrogates in the message
    are escaped, so that quoted text cannot act on a terminal and fits in any log.
    """

    def __init__(self, message: object = "") -> None:
        """Escape the message; line feeds separate its lines."""
        super().__init__(safe_lines(message))
