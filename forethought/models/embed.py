"""Sentence embeddings on CPU, offline: `minilm` (all-MiniLM-L6-v2 from a PyPI package), or a local model's own hidden states.

Used to choose diverse demonstrations, and as features of small judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from forethought.models import locate_embedder, locate_weights
from forethought.models.hf import from_source, load_tokenizer

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
MAX_TOKENS = 256


def load_embedder(spec: str = "minilm") -> Embed:
    """A function from n texts to unit vectors (n, d), the mean of the last hidden states over a text's tokens.

    `spec` is `minilm` (Wang et al. 2020, arXiv 2002.10957; d = 384) or any local model. Raises ForethoughtError where it is not there.
    """
    where = str(locate_embedder()) if spec == "minilm" else locate_weights(spec)[0]
    tokenizer = load_tokenizer(where)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    model = from_source(AutoModel, where).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        # Texts of like length share a batch, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = np.zeros((len(texts), int(model.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            states = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return found

    return embed
