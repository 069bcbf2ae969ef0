"""`hf:` a local transformers model, with or without a LoRA adapter, on CPU or CUDA. Packs whatever asks are pending into one pass."""

from __future__ import annotations

import itertools
import os
import shutil
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging as hf_logging
from transformers.utils.hub import cached_file

from forethought.chat import (
    check_channels,
    continue_prompt,
    encode_begun,
    encode_prompt,
    open_thoughts,
    opens_thought,
    render_prompt,
    stop_ids,
    with_system,
)
from forethought.errors import AskFailed, ForethoughtError, first_line, is_out_of_memory
from forethought.flow import Ask, Logprobs, Question, Search
from forethought.models.decode import POSITIONS, Decoder, Row
from forethought.models.heap import keep_pages
from forethought.models.hub import OUT_OF_REACH, is_out_of_reach
from forethought.models.packed import pack_linears
from forethought.models.pages import ATTENTION, plain_attention, window
from forethought.models.precision import computed_in
from forethought.records import Found, Reply, Sampling, digest
from forethought.run import hash_file

# Weights load in a second; a bar for each load drowns our own progress.
hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]

# Of rows of up to SHORT tokens up to ROWS decode at once, in up to COLUMNS columns in all; longer ones in as many as two of full length
# need, but no more than that: two contexts of 128 K tokens would take more memory than the weights. One row always fits.
ROWS = 64
COLUMNS = 24 * 1024
LONGEST = 2
SHARED = 16
SHORT = 1024
Result = tuple[int, Reply | Logprobs | Found | AskFailed]


class HFModel:
    """A loaded model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, identity: str, system: str | None = None) -> None:
        self.model, self.tokenizer, self.identity, self.system = model, tokenizer, identity, system
        self.pinned = True
        self.about: dict[str, Any] = {}
        self.stops = stop_ids(tokenizer, model.generation_config.eos_token_id if model.generation_config else None)
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 4096))
        self.paged, self.window = plain_attention(model), window(model)
        # What its makers recommend (a repetition penalty, say) is no part of how we say that we sample.
        model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._decoders: list[Decoder] = []
        if self.paged:
            model.set_attn_implementation(ATTENTION)
            least = pack_linears(model, POSITIONS)
            self._decoders = [
                Decoder(model, self.stops, ROWS, columns, least)
                for columns in (COLUMNS, min(COLUMNS, LONGEST * self.context))
            ]
        self._singles: deque[Row] = deque()
        self._searches: deque[tuple[int, Search, int]] = deque()
        self._failed: list[Result] = []

    def render(self, question: Question | Search) -> str:
        """The text before the first generated token. AskFailed where the template cannot render this conversation."""
        try:
            prompt = render_prompt(self.tokenizer, with_system(question.messages, self.system))
        except ForethoughtError as error:
            raise AskFailed("bad_prompt", str(error)) from error
        return continue_prompt(prompt, question.prefix)

    def fingerprint(self, question: Question | Search) -> str:
        return digest(self.render(question))

    def submit(self, ticket: int, question: Question, seed: int) -> None:
        prompt = self.render(replace(question, prefix=""))
        text = continue_prompt(prompt, question.prefix)
        # Apart, as training rows are: some tokenizers mark the first word of a text otherwise than one that stands within it.
        before, said = (
            (encode_prompt(self.tokenizer, prompt), text[len(prompt) :]) if text.startswith(prompt) else ([], text)
        )
        options: tuple[list[int], ...] = ()
        sampling = Sampling(max_tokens=1)
        if isinstance(question, Ask):
            sampling = question.sampling
            ids = before + (encode_begun(self.tokenizer, said) if said else [])
        else:
            ids, options = self._tails(before, said, question.options)
        longest = max(map(len, options), default=sampling.max_tokens)
        if len(ids) + longest > self.context:
            message = f"{len(ids)} prompt tokens and {longest} new ones exceed the context of {self.context}"
            self._failed.append((ticket, AskFailed("too_long", message)))
            return
        row = Row(ticket, ids, sampling, seed, opens_thought(prompt), options=options)
        if not self.paged or (self.window and row.need > self.window):
            self._singles.append(row)
        else:
            row.head = self._head(question, ids)
            self._decoders[row.need > SHORT].submit(row)

    def search(self, ticket: int, question: Search, seed: int) -> None:
        """Queue a search; it is run when nothing else is pending, so that what is found is used and saved before the next one."""
        self._searches.append((ticket, question, seed))

    def _head(self, question: Question, ids: list[int]) -> int:
        """How many ids come before the last turn's words: the system prompt and the demonstrations, which many asks share."""
        last = question.messages[-1]
        other = last.model_copy(update={"content": "0" if last.content[:1] != "0" else "1"})
        bare = encode_prompt(
            self.tokenizer, self.render(replace(question, messages=(*question.messages[:-1], other), prefix=""))
        )
        same = next((i for i, (a, b) in enumerate(zip(ids, bare, strict=False)) if a != b), 0)
        return same if same >= SHARED else 0

    def step(self, block: bool = True) -> list[Result]:
        done, self._failed = self._failed, []
        if self._singles:
            row = self._singles.popleft()
            ended = [self._score(row) if row.options else self._generate(row)]
        else:
            ended = [row for decoder in self._decoders if decoder.busy for row in decoder.step()]
        done += [(row.ticket, self._finish(row)) for row in ended]
        if self._searches and not done and not any(decoder.busy for decoder in self._decoders):
            return [self._search(*self._searches.popleft())]
        return done

    def _search(self, ticket: int, question: Search, seed: int) -> Result:
        try:
            return ticket, question.run(self, seed)
        except AskFailed as failure:
            return ticket, failure
        except ForethoughtError:
            raise
        except Exception as error:
            # Out of memory, or an architecture that a search cannot handle: this row's failure, not the run's.
            return ticket, AskFailed("search_failed", f"{type(error).__name__}: {error}")

    def _tails(self, before: list[int], said: str, options: tuple[str, ...]) -> tuple[list[int], tuple[list[int], ...]]:
        """(ids of the prompt, ids of each option after it). What was `said` and the option are encoded together, as a training row's
        completion is: many tokenizers cut `\\n\\n` before a word otherwise than at the end of a text. What then differs begins the
        tails."""
        ids = before + encode_prompt(self.tokenizer, said)
        wholes = [before + encode_prompt(self.tokenizer, said + option) for option in options]
        agreed = (len(set(column)) == 1 for column in zip(ids, *wholes, strict=False))
        cut = sum(itertools.takewhile(bool, agreed))
        if any(len(whole) <= cut for whole in wholes):
            raise ForethoughtError("cannot score an empty option.")
        return wholes[0][:cut], tuple(whole[cut:] for whole in wholes)

    def close(self) -> None:
        self._decoders.clear()
        self._searches.clear()

    def _finish(self, row: Row) -> Reply | Logprobs:
        if row.reply is None:
            return Logprobs(tuple(row.sums), tuple(map(len, row.options)))
        text = self.tokenizer.decode(row.out, skip_special_tokens=True)
        return row.reply.model_copy(update={"text": text, "opened": row.opened})

    @torch.inference_mode()
    def _score(self, row: Row) -> Row:
        """Sums of log p of each option's tokens; options stand side by side, filled up at the end, which nothing before it sees."""
        longest = max(map(len, row.options))
        most = max(1, COLUMNS // (len(row.ids) + longest))
        for first in range(0, len(row.options), most):
            part = row.options[first : first + most]
            rows = [row.ids + option + option[-1:] * (longest - len(option)) for option in part]
            ids = torch.tensor(rows, device=self.model.device)
            table = self.model(input_ids=ids, logits_to_keep=longest + 1).logits[:, :-1].float().log_softmax(-1)
            said = table.gather(-1, ids[:, len(row.ids) :, None])[..., 0].tolist()
            row.sums += [sum(values[: len(option)]) for values, option in zip(said, part, strict=True)]
        return row

    @torch.inference_mode()
    def _generate(self, row: Row) -> Row:
        """Plain `generate`, one row at a time, for architectures whose cache is not a simple one (windows, linear attention)."""
        with torch.random.fork_rng(devices=[self.model.device] if self.model.device.type == "cuda" else []):
            torch.manual_seed(row.seed)
            sampling: dict[str, Any] = {"do_sample": row.sampling.temperature > 0}
            if sampling["do_sample"]:
                sampling |= {"temperature": row.sampling.temperature, "top_p": row.sampling.top_p, "top_k": 0}
            ids = torch.tensor([row.ids], device=self.model.device)
            out = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=row.sampling.max_tokens,
                eos_token_id=sorted(self.stops) or None,
                pad_token_id=min(self.stops, default=0),
                **sampling,
            )[0, len(row.ids) :].tolist()
        ended = bool(out) and out[-1] in self.stops
        row.out = out[:-1] if ended else out
        row.reply = Reply(
            text="", stop="stop" if ended else "length", prompt_tokens=len(row.ids), completion_tokens=len(row.out)
        )
        return row


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warning about a name that transformers is about to change, and that its Trainer and peft still use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def load_hf(
    source: str, *, adapter: Path | None = None, system: str | None = None, dtype: str = "float32", think: bool = False
) -> HFModel:
    """Load from a directory or the hub (`ID@REVISION`); an adapter is merged into the weights. With `think` its template opens the thought.
    It computes in `dtype` where this machine can (`precision`).

    Raises ForethoughtError where the model is not there, or has no chat template.
    """
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", computed_in(dtype)
    tokenizer, model = load_weights(source, dtype)
    base_template = tokenizer.chat_template
    tokenizer = own_tokenizer(adapter) or tokenizer
    own = tokenizer.chat_template
    if not tokenizer.chat_template:
        raise ForethoughtError(f"the tokenizer of '{source}' has no chat template. Use an instruction-tuned model.")
    check_channels(tokenizer)
    if think:
        open_thoughts(tokenizer)
    if adapter is not None:
        from peft import PeftModel

        with quiet(), explain_load(str(adapter)):
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    local = os.path.isdir(source)
    base = weights_hash(source) if local else f"{source}@{model.config._commit_hash}"
    weights = (base, weights_hash(adapter) if adapter is not None else digest([]))
    # Replies that older versions kept of models with windows, or read one row at a time, are not these.
    way = "pages-2" if plain_attention(model) and not window(model) else "rows-11"
    # So they did of adapters with a template of their own, which was not read.
    way += "-own" if adapter is not None and own != base_template else ""
    # Nor those from when prompt and completion were encoded together, where a tokenizer marks the first word of a text.
    way += "-apart" if encode_prompt(tokenizer, "a") != encode_prompt(tokenizer, "\na")[-1:] else ""
    identity = digest(weights, dtype, device, way)
    loaded = HFModel(model.eval().to(device), tokenizer, identity, system)
    loaded.about = {"revision": None if local else model.config._commit_hash, "dtype": dtype, "device": _device(device)}
    return loaded


def _device(name: str) -> str:
    return str(torch.cuda.get_device_name()) if name == "cuda" else name


def load_weights(source: str, dtype: str) -> tuple[Any, Any]:
    """(tokenizer, model) from a directory, or from the hub as `ID` or `ID@REVISION`. ForethoughtError where it is not there."""
    if not torch.cuda.is_available():
        keep_pages()
    tokenizer = load_tokenizer(source)
    return tokenizer, from_source(AutoModelForCausalLM, source, dtype=getattr(torch, dtype))


def load_tokenizer(source: str) -> Any:
    """The tokenizer alone, from the same places."""
    return from_source(AutoTokenizer, source)


def own_tokenizer(adapter: Path | None) -> Any:
    """The tokenizer that an adapter brings, whose chat template may be another than its base's; None where it has none."""
    return (
        load_tokenizer(str(adapter)) if adapter is not None and (adapter / "tokenizer_config.json").exists() else None
    )


@contextmanager
def explain_load(source: str, absent: str = "") -> Iterator[None]:
    """Weights that are not there (then `absent` says why, where it is given) or cannot be loaded become one clear line."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        why = absent if absent and isinstance(error, OSError | ValueError) else first_line(error)
        raise ForethoughtError(f"cannot load the model '{source}': {why}") from error


def from_source(kind: Any, source: str, **how: Any) -> Any:
    """`kind.from_pretrained` of a directory, or of a hub name with its revision."""
    name, revision = (source, "") if os.path.isdir(source) else (source.partition("@")[0], source.partition("@")[2])
    where: dict[str, Any] = {"local_files_only": True}
    cut_off = not os.path.isdir(source) and is_out_of_reach()
    if not os.path.isdir(source):
        where = {"local_files_only": cut_off, "revision": revision or None}
    with explain_load(source, OUT_OF_REACH if cut_off else ""):
        return kind.from_pretrained(name, **where, **how)


def copy_processor(source: str, folder: Path) -> None:
    """What a model that also sees is read with, beside its weights: servers will not start without it."""
    name, revision = (source, "") if os.path.isdir(source) else (source.partition("@")[0], source.partition("@")[2])
    for file in ("preprocessor_config.json", "processor_config.json"):
        found = cached_file(
            name,
            file,
            revision=revision or None,
            local_files_only=os.path.isdir(source) or is_out_of_reach(),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if found:
            shutil.copy(found, folder / file)


def weights_hash(folder: str | Path) -> str:
    """Hash of the weights, tokenizer and template files of a local model, or of an adapter."""
    files = (f for f in sorted(Path(folder).iterdir()) if f.suffix in (".safetensors", ".bin", ".json", ".jinja"))
    return digest([(f.name, hash_file(f)) for f in files])
