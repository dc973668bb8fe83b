"""What must stand in no log and no report: passwords in addresses, secrets of the environment."""

import os
import re
from collections.abc import Callable

# https://www.rfc-editor.org/rfc/rfc3986#section-3.2: userinfo stands between "//" and "@".
USERINFO = re.compile(r"(?<=://)[^\s/?#'\"]*@")
SECRET_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|_KEY|APIKEY)$")
LEAST_LENGTH = 8  # a shorter value would blot out words
MASK = "***"


def masker() -> Callable[[str], str]:
    """Make a function that masks secrets in a text.

    Masked are the user and password of an address, and the value of every environment variable
    that is named as secrets are (``HF_TOKEN``, ``OPENAI_API_KEY``, ...) when this is called.
    """
    names = (name for name in os.environ if SECRET_NAMES.search(name.upper()))
    values = {os.environ[name].strip() for name in names}
    values = sorted((value for value in values if len(value) >= LEAST_LENGTH), key=len)
    secret = re.compile("|".join(map(re.escape, reversed(values)))) if values else None

    def mask(text: str) -> str:
        text = secret.sub(MASK, text) if secret else text
        return USERINFO.sub(f"{MASK}@", text)

    return mask


def shown_settings(config: dict) -> dict:
    """A configuration to show: keys in one order, which is no change, and secrets masked."""
    return masked(in_order(config), masker())


def masked(value: object, mask: Callable[[str], str]) -> object:
    """Mask every string in nested dictionaries and lists, keys included."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {masked(key, mask): masked(entry, mask) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [masked(entry, mask) for entry in value]
    return value


def in_order(value: object) -> object:
    """Nested settings with the keys of every dictionary sorted; lists keep their order."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=str)}
    return [in_order(entry) for entry in value] if isinstance(value, list) else value
