"""Whether the hub of models can be reached: asked once, since its client tries each look-up six times, with waits of 23 s between them."""

from __future__ import annotations

import sys
from functools import cache

# What a refused connection and a name without an address are called by the HTTP clients that the hub's library has had. A time-out is not
# among them: a slow network is left to the library's patience.
REFUSED = ("ConnectError", "ConnectionError")
OUT_OF_REACH = "The hub cannot be reached, and the model is not in its local cache. Check the network, or name a directory: hf:PATH."


@cache
def is_out_of_reach() -> bool:
    """Whether no connection to the hub can be made; then a line says so, and what is cached is to be used. False where HF_HUB_OFFLINE
    says so already: the libraries heed it themselves."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # Whatever else goes wrong here is for the look-up itself to meet, and to say.
        if type(error).__name__ not in REFUSED:
            return False
        sys.stderr.write(
            "note: the hub of models cannot be reached, so only what is in its local cache is used. HF_HUB_OFFLINE=1 spares the try.\n"
        )
        return True
    return False
