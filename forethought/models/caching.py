"""How a forward pass is given its key-value cache: transformers 5.24 renamed the argument."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """Arguments of `model` that make it read and fill `cache`."""
    # The forward of an adapter takes anything, so its signature says nothing.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind: Any = type(inner)
    return {_name(kind): cache, "use_cache": True}


@lru_cache
def _name(kind: Any) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
