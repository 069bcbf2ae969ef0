"""Hidden states: the residual stream at chosen layers and positions of one text. Layers are numbered as in `latent.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from forethought.optim.latent import decoder_blocks


@torch.inference_mode()
def hidden_states(model: nn.Module, ids: Sequence[int], layers: Sequence[int], positions: Sequence[int]) -> Any:
    """numpy float32 [positions, layers, hidden] of one row of token ids.

    One row a pass, so that what is read does not depend on any other row; and only the positions wanted are kept.
    """
    blocks, device = decoder_blocks(model), next(model.parameters()).device
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found[layer] = hidden[0, list(positions)].float().cpu()

    hooks = [blocks[n].register_forward_pre_hook(partial(keep, n), with_kwargs=True) for n in layers]
    try:
        model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False, logits_to_keep=1)
    finally:
        for handle in hooks:
            handle.remove()
    return torch.stack([found[n] for n in layers], dim=1).numpy()
