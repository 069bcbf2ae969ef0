"""Two Parquet files: `attempts` and `verdicts`, joined by model and attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from forethought.records import Attempt, Verdict
from forethought.report.sources import ModelRuns
from forethought.run import new_folder

BATCH = 5000  # Rows of a row group.
Row = dict[str, Any]


def export(models: Sequence[ModelRuns], out: Path) -> list[Path]:
    """Write the files into a new folder; returns their paths. No attempts or verdicts give a file without rows."""
    home, schemas = new_folder(out), _schemas()
    rows: dict[str, Iterator[Row]] = {
        "attempts": (_attempt(m.name, a) for m in models for a in m.attempts),
        "verdicts": (_verdict(m.name, v) for m in models for v in m.verdicts),
    }
    return [_write(home / f"{name}.parquet", schemas[name], found) for name, found in rows.items()]


def _write(path: Path, schema: Any, rows: Iterator[Row]) -> Path:
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
    return path


def _schemas() -> dict[str, Any]:
    import pyarrow

    text, count = pyarrow.string(), pyarrow.int64()
    turns = pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))
    texts = ("model", "attempt", "attack", "prompt_id", "label", "category", "source", "split", "style", "request")
    attempt = [(name, text) for name in texts] + [("messages", turns), ("prefix", text), ("sample", count)]
    attempt += [(name, text) for name in ("raw", "reasoning", "answer", "status", "stop", "error")]
    attempt += [(name, count) for name in ("prompt_tokens", "completion_tokens", "query_tokens")]
    verdict = [("model", text), ("attempt", text), ("judge", text), ("score", pyarrow.float64())]
    verdict += [(name, text) for name in ("label", "raw", "error")]
    return {"attempts": pyarrow.schema(attempt), "verdicts": pyarrow.schema(verdict)}


def _attempt(model: str, a: Attempt) -> Row:
    p = a.prompt
    row = {
        "model": model, "attempt": a.id, "attack": a.attack, "prompt_id": p.id, "label": p.label, "category": p.category,
        "source": p.source, "split": p.split, "style": p.style, "request": p.request, "prefix": a.prefix, "sample": a.sample,
        "raw": a.raw, "reasoning": a.reasoning, "answer": a.answer, "status": a.status, "stop": a.stop, "error": a.error,
        "prompt_tokens": a.prompt_tokens, "completion_tokens": a.completion_tokens, "query_tokens": a.query_tokens,
    }  # fmt: skip
    turns = [{"role": m.role, "content": _storable(m.content)} for m in a.messages]
    return {k: _storable(v) for k, v in row.items()} | {"messages": turns}


def _verdict(model: str, v: Verdict) -> Row:
    row = {"model": model, "attempt": v.attempt, "judge": v.judge, "score": v.score, "label": v.label, "raw": v.raw}
    return {k: _storable(x) for k, x in (row | {"error": v.error}).items()}


def _storable(value: Any) -> Any:
    """Text without lone surrogates, which no Parquet file can hold."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
