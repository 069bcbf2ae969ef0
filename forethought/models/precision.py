"""The precision that a local model computes in: the one asked for, or float32 on a CPU without kernels for that."""

from __future__ import annotations

import sys
from functools import cache

import torch

INSTEAD = "this CPU has no kernels for bfloat16, so float32 is computed in, with weights of twice the size"


@cache
def computed_in(dtype: str) -> str:
    """`dtype`, or float32 where that would be emulated, which is said once. On a GPU it is always `dtype`."""
    if dtype == "bfloat16" and not torch.cuda.is_available() and not has_bfloat16():
        sys.stderr.write(f"note: {INSTEAD}.\n")
        return "float32"
    return dtype


def has_bfloat16() -> bool:
    """Whether oneDNN has kernels for it on this CPU (on x86: AVX-512). Without them torch's own run at an eighth of float32's rate
    (measured on AVX2, a layer of 576 x 1536), and `pack_linears` cannot lay weights out."""
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())
