"""Prompts from JSONL, JSON, CSV and Parquet files, whatever their columns are called."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from forethought.config import DataConfig
from forethought.errors import ForethoughtError, nearest
from forethought.records import LABELS, Message, Prompt, make_prompt

FIELDS = ("text", "messages", "label", "category", "id", "split", "topic", "pair", "goal", "source")
Row = dict[str, Any]


def load_jsonl(config: DataConfig) -> list[Prompt]:
    """A file of one JSON object a line."""
    return to_prompts(_jsonl_rows(_path(config)), config, _path(config).name)


def load_json(config: DataConfig) -> list[Prompt]:
    """A file that holds one JSON array of objects."""
    return to_prompts(_json_rows(_path(config)), config, _path(config).name)


def load_csv(config: DataConfig) -> list[Prompt]:
    """A CSV file with a header line; lines that begin with # before the header are comments."""
    return to_prompts(_csv_rows(_path(config)), config, _path(config).name)


def load_parquet(config: DataConfig) -> list[Prompt]:
    """A Parquet file, read in batches."""
    return to_prompts(_parquet_rows(_path(config)), config, _path(config).name)


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number from 1, row) of a .jsonl, .json, .csv, .tsv or .parquet file. Raises ForethoughtError naming the row at fault."""
    readers = {
        ".jsonl": _jsonl_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".tsv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    if path.suffix not in readers:
        raise ForethoughtError(f"cannot tell what '{path.name}' is. It must end in {', '.join(readers)}.")
    return readers[path.suffix](check_path(path))


def to_prompts(rows: Iterable[tuple[int, Row]], config: DataConfig, source: str) -> list[Prompt]:
    """Map rows onto Prompt. `config.columns` maps a field of ours to a column of theirs, or to several that are joined
    (`instruction+input`); `config.values` sets a field for every row.

    Only `text` (or `messages`) and `label` are needed. Raises ForethoughtError naming the row and the column at fault.
    """
    for field in (*config.columns, *config.values):
        if field not in FIELDS:
            raise ForethoughtError(f"data '{source}': a prompt has no field '{field}'.{nearest(field, FIELDS)}")
    return [_to_prompt(row, number, config, source) for number, row in rows]


def _to_prompt(row: Row, number: int, config: DataConfig, source: str) -> Prompt:
    values: Row = dict(config.values)
    for field in FIELDS:
        column = config.columns.get(field, field)
        if "+" in column and column not in row:
            row = row | {column: _joined(row, column.split("+"))}
        if column in row:
            if field not in config.values and row[column] not in (None, ""):
                values[field] = row[column]
        elif field in config.columns:
            raise ForethoughtError(f"{source}, row {number}: no column '{column}'.{nearest(column, map(str, row))}")
    if "text" not in values and "messages" not in values:
        column = config.columns.get("text", "text")
        what = (
            f"column '{column}' is empty" if column in row else f"no column '{column}'.{nearest(column, map(str, row))}"
        )
        raise ForethoughtError(
            f"{source}, row {number}: {what} Map it: --column text=COLUMN, or columns.text=COLUMN in an experiment.".replace(
                "empty Map", "empty. Map"
            )
        )
    label = values.pop("label", None)
    if label not in LABELS:
        raise ForethoughtError(
            f"{source}, row {number}, column '{config.columns.get('label', 'label')}': label {label!r} is none of "
            f"{', '.join(LABELS)}. Set one for all rows: --value label=harmful, or values.label=harmful in an experiment."
        )
    try:
        text = values.pop("text", None)
        given = values.pop("messages", None)
        if not given and not isinstance(text, str | int | float):
            raise TypeError(f"column '{config.columns.get('text', 'text')}' holds {type(text).__name__}, not text")
        turns = tuple(Message.model_validate(m) for m in given or ())
        if turns and turns[-1].role != "user":
            raise TypeError("the last message is not the user's. Leave out what answers it")
        fields = {k: str(v) for k, v in values.items() if k not in ("source", "id")}
        id = str(values["id"]) if "id" in values else None
        prompt = make_prompt(turns or str(text), label, str(values.get("source", source)), id=id, **fields)
        prompt.model_dump_json()  # fails for half a surrogate pair, which no run could write
        return prompt
    except (ValueError, TypeError) as error:
        raise ForethoughtError(f"{source}, row {number}: {' '.join(str(error).split())[:200]}") from error


def _path(config: DataConfig) -> Path:
    if not config.path:
        raise ForethoughtError(f"data source '{config.source}' needs path=FILE.")
    return check_path(Path(config.path))


def check_path(path: Path) -> Path:
    """The path of an existing file. Raises ForethoughtError with the nearest name beside it."""
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob(f"*{path.suffix}")] if path.parent.is_dir() else []
        raise ForethoughtError(f"no file '{path}'.{nearest(path.name, siblings)}")
    return path


def _joined(row: Row, columns: list[str]) -> str | None:
    """The texts of several columns with a blank line between them, empty ones left out; None where there is no such text."""
    return "\n\n".join(t for c in columns if isinstance(t := row.get(c), str) and t.strip()) or None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ForethoughtError(f"{path.name}, line {number}: not UTF-8 text.") from error
            except json.JSONDecodeError as error:
                raise ForethoughtError(
                    f"{path.name}, line {number}: not valid JSON ({error.msg} at column {error.colno})."
                ) from error
            if not isinstance(row, dict):
                raise ForethoughtError(f"{path.name}, line {number}: expected a JSON object, got {type(row).__name__}.")
            yield number, row


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ForethoughtError(f"{path.name}: not UTF-8 text.") from error
    except json.JSONDecodeError as error:
        raise ForethoughtError(
            f"{path.name}: not valid JSON ({error.msg} at line {error.lineno}). One object a line? Then call it .jsonl."
        ) from error
    if not isinstance(rows, list):
        raise ForethoughtError(f"{path.name}: expected a JSON array of objects, got {type(rows).__name__}.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ForethoughtError(f"{path.name}, row {number}: expected an object, got {type(row).__name__}.")
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        batches = parquet.ParquetFile(path).iter_batches()
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except (OSError, ArrowException) as error:
        raise ForethoughtError(f"{path} is not a Parquet file: {' '.join(str(error).split())[:200]}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            start = file.tell()
            while file.readline().startswith("#"):
                start = file.tell()
            file.seek(start)
            for number, row in enumerate(csv.DictReader(file, strict=True, delimiter=delimiter), 1):
                if any(row.get(None, ())):
                    raise ForethoughtError(
                        f"{path.name}, row {number}: more values than columns. Put texts with commas in quotes."
                    )
                yield number, row
        except UnicodeDecodeError as error:
            raise ForethoughtError(f"{path.name}: not UTF-8 text ({error}). Save it as UTF-8.") from error
        except csv.Error as error:
            raise ForethoughtError(f"{path.name}: not valid CSV: {error}.") from error
