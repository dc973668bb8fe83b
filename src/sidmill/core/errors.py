"""The one class for mistakes that a user can fix."""


class SidmillError(Exception):
    """A mistake in the input or the settings.

    The message says what was found, where, and what to change. A workflow script that meets one
    ends with exit code 2 and no traceback.
    """
