"""The code blocks of the README."""

from __future__ import annotations

import importlib.metadata
import re

# The README that was built into the wheel: what users read at the registry.
TEXT = importlib.metadata.metadata("exitgate").get_payload() or importlib.metadata.metadata("exitgate")["Description"]


def blocks(fence: str) -> list[str]:
    """The blocks whose fence has exactly these words."""
    return re.findall(rf"^```{fence}\n(.*?)^```$", str(TEXT), flags=re.MULTILINE | re.DOTALL)


def block(fence: str) -> str:
    (only,) = blocks(fence)
    return only
