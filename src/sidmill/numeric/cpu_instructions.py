"""The instructions of this CPU, as torch tells them."""

from collections.abc import Mapping

import torch


def known() -> Mapping[str, object]:
    """Return ``torch.cpu.get_capabilities()``; nothing where torch does not tell (before 2.9)."""
    try:
        capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return {}
    return capabilities
