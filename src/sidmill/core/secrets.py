"""Mask secrets in logs and reports: passwords in addresses, secrets of the environment."""

import os
import re
from collections.abc import Callable
from typing import Any

# https://www.rfc-editor.org/rfc/rfc3986#section-3.2: userinfo stands between "//" and "@".
USERINFO = re.compile(r"(?<=://)[^\s/?#'\"]*@")
SECRET_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|_KEY|APIKEY)$")
LEAST_LENGTH = 8  # a shorter value may be part of ordinary words
MASK = "***"


def masker() -> Callable[[str], str]:
    """Make a function that masks secrets in a text.

    Masked are the user and password of an address, and the value of every environment variable
    that is named as secrets are (``HF_TOKEN``, ``OPENAI_API_KEY``, ...) when this is called.
    """
    names = (name for name in os.environ if SECRET_NAMES.search(name.upper()))
    values = {os.environ[name].strip() for name in names}
    values = {value for value in values if len(value) >= LEAST_LENGTH}

    # Long values first: one may contain another.
    longest_first = sorted(values, key=len, reverse=True)
    secret = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def mask(text: str) -> str:
        text = secret.sub(MASK, text) if secret else text
        return USERINFO.sub(f"{MASK}@", text)

    return mask


def shown_settings(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration to show: keys sorted, since their order is no change, and secrets masked."""
    mask = masker()
    return {mask(key): masked(in_order(config[key]), mask) for key in sorted(config, key=str)}


def masked(value: Any, mask: Callable[[str], str]) -> Any:
    """Mask every string in nested dictionaries and lists, keys included."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {masked(key, mask): masked(entry, mask) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [masked(entry, mask) for entry in value]
    return value


def in_order(value: Any) -> Any:
    """Nested settings with the keys of every dictionary sorted; lists keep their order."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=str)}
    return [in_order(entry) for entry in value] if isinstance(value, list) else value
