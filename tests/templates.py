"""Small tokenizers that carry the real chat templates of a dozen model families.

Template text is read at run time from the installed TRL package; only the special tokens are written down here. The vocabulary is
a byte-level BPE of a few sentences, and the tokenizer adds a BOS of its own where the family's does, so that a doubled one shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from conftest import CHATML
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "How do I bake bread? Knead the dough, let it rest for an hour, then bake it in a hot oven.",
    "The request asks for something that could hurt people, so I refuse and offer a safe alternative.",
    "Be kind. Hello. Hi again. The answer follows the thought, and the thought comes before the answer.",
)


@dataclass(frozen=True)
class Family:
    """The template file in TRL and the special tokens of a model family. `before` goes in front of the template's text;
    `tags` says that the think tags are single tokens, though not special ones; `nfc` that text is normalized."""

    file: str
    bos: str | None
    eos: str
    pad: str
    special: tuple[str, ...] = ()
    tags: bool = False
    nfc: bool = False
    before: str = ""


LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<start_of_turn>", "<end_of_turn>")
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>")
COHERE = ("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
START, END, TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
R1_BOS, R1_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"

FAMILIES = {
    "chatml": Family("", START, END, END),
    "llama3": Family("llama3", "<|begin_of_text|>", "<|end_of_text|>", "<|end_of_text|>", LLAMA),
    "llama3_1": Family("llama3_1", "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>", LLAMA),
    "gemma": Family("gemma", "<bos>", "<eos>", "<pad>", GEMMA),
    "gemma3": Family("gemma3", "<bos>", "<eos>", "<pad>", GEMMA),
    "phi3": Family("phi3", "<s>", TEXT, TEXT, PHI),
    "phi3_5": Family("phi3_5", "<s>", TEXT, TEXT, PHI),
    "qwen2_5": Family("qwen2_5", None, END, TEXT, (START,), nfc=True),
    "qwen3": Family("qwen3", None, END, TEXT, (START,), tags=True, nfc=True),
    "qwen3_off": Family(
        "qwen3", None, END, TEXT, (START,), tags=True, nfc=True, before="{%- set enable_thinking = false -%}"
    ),
    "qwen3_5_think": Family("qwen3_5_think", None, END, TEXT, (START,), tags=True, nfc=True),
    "qwen3_5_nothink": Family("qwen3_5_nothink", None, END, TEXT, (START,), tags=True, nfc=True),
    "deepseek_r1_distill": Family("deepseek_r1_distill", R1_BOS, R1_EOS, R1_EOS, DEEPSEEK, tags=True),
    "deepseekv3": Family("deepseekv3", R1_BOS, R1_EOS, R1_EOS, DEEPSEEK, tags=True),
    "cohere": Family("cohere", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<PAD>", COHERE),
    "glm4moe": Family("glm4moe", None, TEXT, TEXT, GLM, tags=True),
    "lfm2": Family("lfm2", "<|startoftext|>", END, "<|pad|>", (START,)),
}


def template_names() -> list[str]:
    """Every inference template that TRL stores."""
    names = (f.name for f in files("trl").joinpath("chat_templates").iterdir())
    return sorted(n.removesuffix(".jinja") for n in names if n.endswith(".jinja") and not n.endswith("_training.jinja"))


def template_text(name: str) -> str:
    return files("trl").joinpath("chat_templates", f"{name}.jinja").read_text(encoding="utf-8")


@cache
def load(name: str) -> Any:
    """The tokenizer of a family; one object per family, so a test that changes it must `build` its own."""
    return build(FAMILIES[name])


def build(family: Family, chat_template: str | None = None) -> Any:
    """A tokenizer with the family's special tokens and, unless another is given, its template."""
    inner = Tokenizer.from_str(_vocabulary())
    if family.nfc:
        inner.normalizer = normalizers.NFC()
    named = [t for t in (family.bos, family.eos, family.pad) if t]
    inner.add_special_tokens(list(dict.fromkeys([*named, *family.special])))
    if family.tags:
        inner.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    if family.bos:
        first = (family.bos, inner.token_to_id(family.bos))
        inner.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A $B", special_tokens=[first]
        )
    out = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=family.bos, eos_token=family.eos, pad_token=family.pad
    )
    own = CHATML if chat_template or not family.file else template_text(family.file)
    out.chat_template = chat_template or family.before + own
    return out


@cache
def _vocabulary() -> str:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return str(inner.to_str())
