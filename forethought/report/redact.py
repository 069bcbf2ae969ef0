"""A page that can be shared: every prompt, reply, system prompt and command is masked, every number stays.

Masking is done on the data, and then checked on the page: whatever a section has put there, a page that still holds a run of words of a
prompt or a reply is not written.
"""

from __future__ import annotations

import base64
import html
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from forethought.analysis.capability import Ability
from forethought.analysis.equivalence import Paired
from forethought.data.overlap import normalise, spaced
from forethought.errors import ForethoughtError
from forethought.records import Attempt, Prompt, Verdict, digest
from forethought.report.data import Beside, ModelCard, ReportData, Transcript
from forethought.report.sources import ModelRuns
from forethought.report.transcripts import reference

A = TypeVar("A", Ability, Paired)
RUN = 8  # Words of a text that no page has by chance.


def masked(data: ReportData) -> ReportData:
    """The same numbers without texts. Ids become hashes, paths their last part, commands their names."""
    names = _shown_names(data)
    shown = [_transcript(t, names) for t in data.transcripts]
    renamed = {reference(old.attempt): reference(new.attempt) for old, new in zip(data.transcripts, shown, strict=True)}
    hidden = data.model_copy(
        update={
            "command": _command(data.command),
            "policy": mask_name(data.policy),
            "policy_note": data.policy_note.replace(data.policy, mask_name(data.policy)),
            "models": tuple(_card(c) for c in data.models),
            "transcripts": tuple(shown),
            "neighbours": tuple(_beside(b, renamed) for b in data.neighbours),
            "judges": tuple(j.model_copy(update={"model": _path(j.model)}) for j in data.judges),
            "abilities": {m: tuple(map(_ability, found)) for m, found in data.abilities.items()},
            "ability_changes": {m: tuple(map(_ability, found)) for m, found in data.ability_changes.items()},
            "git": "",
        }
    )
    changed = {old: new for old, new in names.items() if old != new}
    return ReportData.model_validate(_renamed(hidden.model_dump(), changed)) if changed else hidden


def mask_name(name: str) -> str:
    """The name of an attack or a judge, its paths cut to their last part: `templates:/home/me/x.json` is `templates:x.json`."""
    return re.sub(r"(?<![^(),=:+])(['\"]?)[^(),=:+]*[/\\](?=[^(),=:+/\\])", r"\1", name)


def mask(text: str) -> str:
    """How long a text was; nothing of it. Empty stays empty."""
    return f"[masked: {len(text):,} characters]" if text else ""


def check_masked(page: str, models: Sequence[ModelRuns]) -> None:
    """ForethoughtError where the page holds a run of RUN words of a prompt or reply, or a whole prompt of at least four words."""
    words = _words(" ".join(readable(page)))
    shown = f" {' '.join(words)} "
    runs = {" ".join(words[i : i + RUN]) for i in range(len(words))}
    for text, whole in dict.fromkeys(_texts(models)):
        own = _words(text)
        pieces = [" ".join(own[i : i + RUN]) for i in range(len(own) - RUN + 1)]
        found = next((p for p in pieces if p in runs), None)
        if found is None and whole and 4 <= len(own) < RUN and f" {' '.join(own)} " in shown:
            found = " ".join(own)
        if found is not None:
            raise ForethoughtError(
                f"the page would still hold text of a prompt or a reply ({digest(found, length=8)}, {len(found)} characters), so it was "
                "not written. A section, a title or a name shows it: leave that out, or report this as a mistake of ours."
            )


def _words(text: str) -> list[str]:
    return spaced(normalise(text)).split()


def readable(page: str) -> Iterator[str]:
    """Everything that a page holds as text: what is shown, attributes, tables behind links, packed transcripts."""
    for encoded in re.findall(r"data:text/csv;charset=utf-8;base64,([A-Za-z0-9+/=]+)", page):
        yield base64.b64decode(encoded).decode("utf-8", "replace")
    packed = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    if packed:
        payload = json.loads(packed[1])
        yield from (
            zlib.decompress(base64.b64decode(p)).decode("utf-8") for p in (payload["index"], *payload["chunks"])
        )
    plain = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    plain = re.sub(r'(?:data:text/csv|sha256-)[^"\']*', " ", plain)
    yield html.unescape(re.sub(r"<[^<>]*?>", lambda tag: " " + " ".join(re.findall(r'"([^"]*)"', tag[0])) + " ", plain))


def _texts(models: Sequence[ModelRuns]) -> Iterator[tuple[str, bool]]:
    """(text, whether it is a prompt) of everything that was sent or came back."""
    for model in models:
        yield model.target["system"] or "", True
        for a in (*model.attempts, *(t.attempt for t in model.trials)):
            yield from ((text, True) for text in (a.prompt.text, a.prompt.goal or ""))
            yield from ((m.content, False) for m in a.messages)
            yield from ((text, False) for text in (a.prefix, a.raw, a.reasoning or "", a.answer))
        yield from ((v.raw, False) for v in (*model.verdicts, *model.tried))
        yield from ((look.reasoning or "", False) for s in model.scores for look in s.looks)


def _alias(id: str) -> str:
    """A data set may have a text for an id."""
    return digest("masked", id, length=12)


def _shown_names(data: ReportData) -> dict[str, str]:
    """{name: what a shared page calls it} of all attacks and judges. ForethoughtError where two would become one."""
    spoken = (v.judge for t in data.transcripts for v in t.verdicts)
    names = {n: mask_name(n) for n in (*(a.name for a in data.attacks), *(j.name for j in data.judges), *spoken)}
    if len(set(names.values())) < len(names):
        twice = [new for new, n in Counter(names.values()).items() if n > 1]
        raise ForethoughtError(
            f"without their paths, several attacks or judges would be called {twice[0]}. Rename a file, and run that one again."
        )
    return names


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The same, with the names changed wherever they stand."""
    if isinstance(value, dict):
        return {_renamed(k, names): _renamed(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(v, names) for v in value]
    if isinstance(value, str):
        for old, new in names.items():
            value = value.replace(old, new)
    return value


def _transcript(shown: Transcript, names: dict[str, str]) -> Transcript:
    a = shown.attempt
    attempt = Attempt(
        id=_alias(a.id), prompt=_prompt(a.prompt), attack=names.get(a.attack, a.attack), sample=a.sample, status=a.status, stop=a.stop,
        messages=tuple(m.model_copy(update={"content": mask(m.content)}) for m in a.messages), prefix=mask(a.prefix),
        reasoning=None if a.reasoning is None else mask(a.reasoning), answer=mask(a.answer), error=_kind(a.error),
        prompt_tokens=a.prompt_tokens, completion_tokens=a.completion_tokens, queries=a.queries, query_tokens=a.query_tokens,
    )  # fmt: skip
    verdicts = tuple(
        Verdict(attempt=attempt.id, judge=v.judge, score=v.score, label=v.label, error=_kind(v.error))
        for v in shown.verdicts
    )
    return shown.model_copy(update={"attempt": attempt, "verdicts": verdicts})


def _prompt(prompt: Prompt) -> Prompt:
    """Without its wording; `base` stays the same for all wordings of a prompt."""
    name = _alias(prompt.base) + (f"~{_alias(prompt.id)}" if prompt.style else "")
    return Prompt(
        id=name, label=prompt.label, category=prompt.category, source=_path(prompt.source), style=prompt.style,
        messages=tuple(m.model_copy(update={"content": mask(m.content)}) for m in prompt.messages),
        goal=None if prompt.goal is None else mask(prompt.goal),
    )  # fmt: skip


def _card(card: ModelCard) -> ModelCard:
    placed = card.distribution
    if placed is not None:
        placed = placed.model_copy(update={"prompts": {_alias(id): place for id, place in placed.prompts.items()}})
    return card.model_copy(
        update={
            "base": _path(card.base),
            "method": mask_name(card.method),
            "init": _path(card.init),
            "system": None if card.system is None else mask(card.system),
            "commands": tuple(dict.fromkeys(_command(c) for c in card.commands)),
            "distribution": placed,
            "data": {k: _few(v) for k, v in card.data.items()},
        }
    )


def _beside(found: Beside, renamed: dict[str, str]) -> Beside:
    return found.model_copy(
        update={
            "refused": renamed.get(found.refused, ""),
            "harmless": renamed.get(found.harmless, ""),
            "text": mask(found.text),
        }
    )


def _ability(found: A) -> A:
    """Tasks and their modes are named by specs too."""
    return found.model_copy(update={"task": mask_name(found.task), "mode": mask_name(found.mode)})


def _few(counts: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, n in counts.items():
        found[_path(name)] = found.get(_path(name), 0) + n
    return found


def _kind(error: str | None) -> str | None:
    """The kind of an error, before its details."""
    return None if error is None else error.partition(":")[0][:40]


def _path(name: str) -> str:
    """The last part of a path; of a server's model its name, without the server."""
    return re.split(r"[/\\]", re.sub(r"@https?://\S+", "", name).rstrip("/\\"))[-1]


def _command(command: str) -> str:
    """`forethought attack …`: what was run, not on what."""
    return " ".join([*command.split()[:2], "…"]) if command else ""
