"""How often a client may ask and upload, what no client may ask, and what a browser may do with the page.

A token bucket a client: so many questions at once, and as many a minute from then on. A client is an address; those
behind one proxy share a bucket. Headers that name another address are not believed: anyone can send them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from openjepa.core.errors import UserError

PER_MINUTE = 60  # questions
FETCHING = ("file=http", "file/http", "proxy=")  # in a path: it names an address elsewhere
POLICY = (  # Gradio's page has inline scripts and styles, and makes functions of its templates
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src "
    "'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
MOST_CLIENTS = 10_000  # that are remembered; full buckets are forgotten first


class RateLimit:
    """The buckets of all clients; thread-safe. `clock` counts seconds."""

    def __init__(self, per_minute: int = PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # client -> questions left, and the time of that count
        self._lock = threading.Lock()

    @property
    def clients(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def take(self, client: str) -> None:
        """Count a question. Raises UserError, with the time to wait, if the client has none left."""
        with self._lock:
            now = self.clock()
            left = self._left(client, now)
            if left < 1:
                wait_s = math.ceil((1 - left) * 60 / self.per_minute)
                raise UserError(
                    f"too many questions: the limit of this page is {self.per_minute} a minute for each client; "
                    f"try again in {wait_s} s"
                )
            if len(self._buckets) >= MOST_CLIENTS:
                self._forget(now)
            self._buckets[client] = (left - 1, now)

    def _left(self, client: str, now: float) -> float:
        left, counted = self._buckets.get(client, (self.per_minute, now))
        return min(self.per_minute, left + (now - counted) * self.per_minute / 60)

    def _forget(self, now: float) -> None:
        """Forget clients with full buckets; if there are none, all of them, rather than grow without end."""
        kept = {client: count for client, count in self._buckets.items() if self._left(client, now) < self.per_minute}
        self._buckets = kept if len(kept) < MOST_CLIENTS else {}


class Guard:
    """ASGI middleware: uploads count as questions and are refused unread; no address is fetched for a client.

    Gradio's routes for files would also fetch and pass on what a public web address holds. Every answer has a
    Content-Security-Policy: nothing from elsewhere is loaded, and no other page may hold this one.
    """

    def __init__(self, app: Any, limit: RateLimit) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if any(sign in path for sign in FETCHING):
            await _refuse(send, 403, "this page fetches nothing from elsewhere")
            return
        if scope["type"] == "http" and scope["method"] == "POST" and path.endswith("/upload"):
            try:
                self.limit.take(client_of(scope.get("client")))
            except UserError as error:
                await _refuse(send, 429, str(error))
                return
        await self.app(scope, receive, _with_policy(send))


def _with_policy(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            policy = (b"content-security-policy", POLICY.encode())
            message = {**message, "headers": [*message.get("headers", ()), policy]}
        await send(message)

    return sent


async def _refuse(send: Any, status: int, reason: str) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": reason.encode()})


def client_of(address: tuple[str, int] | None) -> str:
    """The client behind an address (host, port); all whose address is unknown are one."""
    return address[0] if address else ""
