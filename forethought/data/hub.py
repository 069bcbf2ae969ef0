"""Prompts from a data set of the Hugging Face hub."""

from __future__ import annotations

from forethought.config import DataConfig
from forethought.data.files import to_prompts
from forethought.errors import ForethoughtError
from forethought.records import Prompt


def load(config: DataConfig) -> list[Prompt]:
    """Rows of `path=owner/name`, `owner/name:subset`, or either with `@split` at the end (default `train`), mapped like a file's."""
    if not config.path:
        raise ForethoughtError("data source 'hub' needs path=owner/name.")
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name, _, split = config.path.partition("@")
    name, _, subset = name.partition(":")
    try:
        rows = load_dataset(name, subset or None, split=split or "train")
    except DatasetNotFoundError as error:
        raise ForethoughtError(
            f"cannot load '{name}' from the hub: {_first_line(error)} "
            f"If it is gated, accept its terms on its page and run `hf auth login`."
        ) from error
    except (ConnectionError, OSError, ValueError) as error:
        raise ForethoughtError(f"cannot load '{name}' from the hub: {_first_line(error)}") from error
    return to_prompts(enumerate(rows, 1), config, name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
