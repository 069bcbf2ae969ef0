"""Prompts from a data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator

from forethought.config import DataConfig
from forethought.data.files import Row, to_prompts
from forethought.errors import ForethoughtError, first_line
from forethought.records import Prompt


def load(config: DataConfig) -> list[Prompt]:
    """Rows of `path=owner/name`, `owner/name:subset`, or either with `@split` at the end (default `train`), mapped like a file's."""
    if not config.path:
        raise ForethoughtError("data source 'hub' needs path=owner/name.")
    name, _, split = config.path.partition("@")
    name, _, subset = name.partition(":")
    return to_prompts(hub_rows(name, subset, split), config, name)


def hub_rows(name: str, subset: str = "", split: str = "", **options: str | bool) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of a data set of the hub; `options` are those of its file reader (`delimiter`). Raises ForethoughtError where it
    is gated or out of reach."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        rows = load_dataset(name, subset or None, split=split or "train", **options)
    # The second is the parent of the error for gated repositories.
    except (DatasetNotFoundError, RepositoryNotFoundError) as error:
        raise ForethoughtError(
            f"cannot load '{name}' from the hub: {first_line(error)} "
            f"If it is gated, accept its terms on the hub's page of '{name}' and run `hf auth login`."
        ) from error
    # The last: sets that are a script, which no longer runs.
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise ForethoughtError(f"cannot load '{name}' from the hub: {first_line(error)}") from error
    return iter(enumerate(rows, 1))
