"""A fast stand-in for a chat server: `python -m bench.standin LATENCY_SECONDS CONCURRENCY` prints its port when it listens.

It answers every request with the same words after a fixed time, at most CONCURRENCY of them at once, as a server with so many slots does.
"""

from __future__ import annotations

import asyncio
import json
import sys

ANSWER = "Mix the parts in a bowl, wait for an hour, and then look at what has changed. Write it down before you go on."
BODY = json.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 24},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def serve(latency: float, concurrency: int) -> None:
    slots = asyncio.Semaphore(concurrency)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().find(b"content-length:")
                if at >= 0:
                    await reader.readexactly(int(head[at + 15 : head.find(b"\r\n", at)]))
                async with slots:
                    await asyncio.sleep(latency)
                writer.write(HEAD % len(BODY) + BODY)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
