"""Synthesis runs in the formats that other trainers read. Thoughts keep their tags, so that every trainer sees the same text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from forethought.chat import render_completion
from forethought.errors import ForethoughtError, nearest
from forethought.records import Example
from forethought.run import new_folder, write_json, write_text

Row = dict[str, Any]


def as_messages(example: Example) -> Row:
    """`messages` whose last turn holds the thought as `reasoning_content`. Many chat templates drop that field without a word: render it
    yourself, or train with `forethought train`."""
    turn: Row = {"role": "assistant", "content": example.answer}
    if example.reasoning is not None:
        turn["reasoning_content"] = example.reasoning
    return {"messages": [*_turns(example), turn], **_facts(example)}


def as_trl(example: Example) -> Row:
    """TRL's conversational prompt and completion; the thought stands in the completion's content, between think tags."""
    return {"prompt": _turns(example), "completion": [{"role": "assistant", "content": _whole(example)}]}


def as_llamafactory(example: Example) -> Row:
    """LLaMA-Factory's sharegpt form with role and content names, as `dataset_info.json` beside it declares."""
    return {"messages": [*_turns(example), {"role": "assistant", "content": _whole(example)}]}


def as_ours(example: Example) -> Row:
    """The record as it stands in `examples.jsonl`."""
    return example.model_dump(mode="json")


FORMS: dict[str, Callable[[Example], Row]] = {
    "messages": as_messages,
    "trl": as_trl,
    "llamafactory": as_llamafactory,
    "parquet": as_messages,
    "jsonl": as_ours,
}


def export(examples: Iterable[Example], form: str, out: Path, card: str | None = None) -> list[Path]:
    """Write examples into the folder `out` and return the files written. `card` becomes `README.md`.

    Raises ForethoughtError for an unknown form, no examples, or a folder that holds other files.
    """
    if form not in FORMS:
        raise ForethoughtError(f"unknown form '{form}'.{nearest(form, FORMS)}")
    rows = [FORMS[form](e) for e in examples]
    if not rows:
        raise ForethoughtError("there is no example to export.")
    new_folder(out)
    written: list[Path]
    if form == "parquet":
        import pyarrow
        from pyarrow import parquet

        (out / "data").mkdir()
        written = [out / "data" / "train-00000-of-00001.parquet"]
        parquet.write_table(pyarrow.Table.from_pylist(rows), written[0])
    else:
        written = [out / "train.jsonl"]
        write_text(written[0], "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    if form == "llamafactory":
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        info = {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}}
        write_json(out / "dataset_info.json", {"forethought": info | {"tags": tags | {"system_tag": "system"}}})
        written.append(out / "dataset_info.json")
    if card is not None:
        write_text(out / "README.md", card)
        written.append(out / "README.md")
    return written


def _turns(example: Example) -> list[Row]:
    return [{"role": m.role, "content": m.content} for m in example.prompt.messages]


def _whole(example: Example) -> str:
    return render_completion("", example.reasoning, example.answer, "")


def _facts(example: Example) -> Row:
    p = example.prompt
    facts = {"id": p.id, "label": p.label, "category": example.category, "style": p.style, "source": p.source}
    return facts | {"decision": example.decision, "intent": example.intent, "method": example.method}
