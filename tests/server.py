"""A small chat server for tests: `server.py MODEL_DIR LOG [PORT]` prints its port when it listens.

The name of the model chooses how it behaves; `tiny` generates with the weights at MODEL_DIR. Every request is a line of LOG.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOCK = threading.Lock()
TRIES: Counter[str] = Counter()
IN_FLIGHT = 0


@cache
def weights(path: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    return AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path).eval()


def generate(path: str, body: dict[str, Any]) -> dict[str, Any]:
    with LOCK:
        tokenizer, model = weights(path)
        more = body.get("continue_final_message", False)
        ids = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=not more, continue_final_message=more, return_tensors="pt",
            return_dict=True,
        )  # fmt: skip
        length = ids["input_ids"].shape[1]
        new = min(body["max_tokens"], 8)
        out = model.generate(**ids, max_new_tokens=new, do_sample=False)[0, length:]
    text = tokenizer.decode(out, skip_special_tokens=True)
    usage = {"prompt_tokens": length, "completion_tokens": len(out)}
    return completion({"content": text}, "length" if len(out) == new else "stop", usage)


def completion(message: dict[str, Any], stop: str = "stop", usage: dict[str, int] | None = None) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": stop}], "usage": usage}


def error(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "invalid_request_error"}}


def answer(path: str, body: dict[str, Any], authorized: bool) -> tuple[int, Any]:
    asked = json.dumps(body, sort_keys=True)
    match body["model"]:
        case "tiny":
            return 200, generate(path, body)
        case "echo":
            return 200, completion({"content": asked})
        case "slow":
            time.sleep(0.05)
            return 200, completion({"content": "slow"})
        case "reasoning" | "reasoning_content" as field:
            return 200, completion({"content": "Bread needs time.", field: "They want bread."})
        case "cut":
            return 200, completion({"content": None, "reasoning": "They want"}, "length")
        case "prefix":
            return 200, completion({"content": body["messages"][-1]["content"] + " and more"})
        case "surrogate":
            return 200, completion({"content": "half \ud83d"})
        case "flaky":
            TRIES[asked] += 1
            # The second is a relay's, before a server that is down.
            return (503, 530, 200)[min(TRIES[asked], 3) - 1], completion({"content": "at last"})
        case "limited":
            TRIES[asked] += 1
            # In a list, as Google's server has it.
            return (429, [error("slow down")]) if TRIES[asked] <= 4 else (200, completion({"content": "at last"}))
        case "newer" if "max_tokens" in body:
            return 400, error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        case "newer":
            return 200, completion({"content": asked})
        case "down":
            return 503, error("away")
        case "cut_to_nothing":
            return 200, completion({"content": "", "reasoning": "They want"}, "length")
        case "all_is_thought":
            return 200, completion({"content": None, "reasoning": "here is bread."})
        case "no_system" if any(m["role"] == "system" for m in body["messages"]):
            return 400, error("System role not supported")
        case "no_system":
            return 200, completion({"content": asked})
        case "opened":
            return 200, completion({"content": "They want bread.\n</think>\n\nBread needs time."})
        case "opened_cut":
            return 200, completion({"content": "They want"}, "length")
        case "thinker" if "temperature" in body or "top_p" in body or "seed" in body:
            field = next(f for f in ("temperature", "top_p", "seed") if f in body)
            return 400, error(f"Unsupported value: '{field}' does not support {body[field]} with this model.")
        case "thinker":
            return 200, completion({"content": asked})
        case "breaks":
            return 500, error("broken")
        case "picky":
            return (524, error("too slow")) if "long story" in asked else (200, completion({"content": "short"}))
        case "long":
            text = body["messages"][-1]["content"]
            if len(text) <= 1000:
                return 200, completion({"content": "I'm sorry, but I can't help with that."})
            return 400, error("This model's maximum context length is 2048 tokens.\nPlease shorten.")
        case "rejects":
            return 422, error("temperature is not supported")
        case "moderated":
            return 403, error("This model requires moderation. Your input was flagged for violence.")
        case "spent":
            return 402, error("Insufficient Balance")
        case "moved":
            return 308, ""
        case "filter":
            return 200, completion({"content": "Su"}, "content_filter")
        case "garbage":
            return 200, "<html>not JSON</html>"
        case "empty":
            return 200, {"choices": []}
        case "locked" if not authorized:
            return 401, error("no key")
        case "locked":
            return 200, completion({"content": "open"})
        case other:
            return 404, error(f"The model `{other}` does not exist.")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        global IN_FLIGHT
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            IN_FLIGHT += 1
            busy = IN_FLIGHT
        status, payload = answer(sys.argv[1], body, self.headers.get("Authorization") == "Bearer sesame")
        if self.path != "/v1/chat/completions":
            status, payload = 404, error(f"no {self.path}")
        data = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
        with LOCK:
            IN_FLIGHT -= 1
            with open(sys.argv[2], "a", encoding="utf-8") as log:
                log.write(json.dumps({"body": body, "status": status, "busy": busy}) + "\n")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0.1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
