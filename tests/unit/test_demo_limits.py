"""The limits of the demo: questions a minute, uploads, and who can reach the page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openjepa import api
from openjepa.cli import demo as verb
from openjepa.cli import main
from openjepa.core.errors import UserError
from openjepa.demo import limits, page, render
from openjepa.demo.controls import Controls
from openjepa.demo.limits import Guard, RateLimit


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, client: str, tries: int) -> int:
    """How many of these tries are answered."""
    answered = 0
    for _ in range(tries):
        try:
            limit.take(client)
            answered += 1
        except UserError:
            pass
    return answered


def test_a_client_may_ask_as_often_as_it_is_allowed_and_then_has_to_wait() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=6, clock=clock)
    assert taken(limit, "a", 10) == 6
    with pytest.raises(UserError, match=r"the limit of this page is 6 a minute for each client; try again in 10 s"):
        limit.take("a")
    clock.now += 4
    with pytest.raises(UserError, match="try again in 6 s"):
        limit.take("a")
    clock.now += 6
    assert taken(limit, "a", 10) == 1, "one question comes back every ten seconds"
    clock.now += 3600
    assert taken(limit, "a", 10) == 6, "and no more than a minute's are saved up"


def test_waiting_as_long_as_it_is_told_is_enough() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=7, clock=clock)
    assert taken(limit, "a", 8) == 7
    clock.now += 9  # ceil(60 / 7)
    limit.take("a")


def test_clients_have_limits_of_their_own() -> None:
    limit = RateLimit(per_minute=2, clock=Clock())
    assert (taken(limit, "a", 5), taken(limit, "b", 5)) == (2, 2)


def test_the_memory_of_clients_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CLIENTS", 10)
    clock = Clock()
    limit = RateLimit(per_minute=1, clock=clock)
    for number in range(5):
        limit.take(f"early {number}")
    clock.now += 61  # their buckets are full again
    for number in range(5):
        limit.take(f"late {number}")
    limit.take("one more")
    assert taken(limit, "late 0", 1) == 0, "those that have to wait are not forgotten first"
    for number in range(100):
        limit.take(f"many {number}")
        assert limit.clients <= 10


def asked(guard: Guard, path: str, method: str = "POST", client: tuple[str, int] | None = ("1.2.3.4", 5)) -> Any:
    """The status and the body of the answer to a request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "client": client}
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode()


def test_uploads_above_the_limit_and_addresses_elsewhere_are_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"read"})

    limit = Guard(app, RateLimit(per_minute=2, clock=Clock()))
    assert [asked(limit, "/gradio_api/upload")[0] for _ in range(3)] == [200, 200, 429]
    assert "try again in 30 s" in asked(limit, "/gradio_api/upload")[1]
    assert asked(limit, "/gradio_api/queue/join") == (200, "read")
    assert asked(limit, "/gradio_api/upload", method="GET") == (200, "read")
    assert asked(limit, "/gradio_api/upload", client=None) == (200, "read"), "another client"
    assert asked(limit, "/gradio_api/file=/tmp/gradio/thumbnail.webp", method="GET") == (200, "read")
    for path in ("file=https://example.org/x.png", "file/http://example.org/x.png", "proxy=https://example.org/x"):
        assert asked(limit, f"/gradio_api/{path}", method="GET") == (403, "this page fetches nothing from elsewhere")


def test_an_answer_counts_as_a_question_and_the_limit_is_said_on_the_page() -> None:
    gradio = SimpleNamespace(Request=object)
    answer = Controls(gradio, RateLimit(per_minute=1, clock=Clock())).answering(str.upper, str)
    request = SimpleNamespace(client=("1.2.3.4", 5))
    assert answer(request, "yes") == "YES"
    limit = "too many questions: the limit of this page is 1 a minute for each client; try again in 60 s"
    assert answer(request, "yes") == render.error(limit)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.1.2.3", False)],
)
def test_an_open_page_is_called_open(
    host: str, local: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    served: list[tuple[Any, ...]] = []

    def serve(*given: Any) -> Any:
        served.append(given)
        return SimpleNamespace(close=lambda verbose: None)

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "serve", serve)
    monkeypatch.setattr(api, "load", lambda folder, *_: folder)
    monkeypatch.setattr(verb, "wait", interrupted)
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "x" / ".." / "a"]
    assert main(["demo", *map(str, folders), "--host", host, "--per-minute", "7"]) == 0
    said = capsys.readouterr().err
    assert ("opens the page to everyone who can reach this machine; it asks for no password" in said) is not local
    assert verb.is_local(host) is local
    (runs, *_, limit), *_ = served
    assert [run.resolve() for run in runs] == [tmp_path.resolve() / "a", tmp_path.resolve() / "b"], (
        "a run that is given twice is shown once"
    )
    assert limit.per_minute == 7


def test_the_page_is_local_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[str] = []

    def serve(runs: Any, host: str, *_: Any) -> Any:
        served.append(host)
        raise UserError("that is all")

    monkeypatch.setattr(page, "serve", serve)
    monkeypatch.setattr(api, "load", lambda folder, *_: folder)
    assert main(["demo", str(tmp_path)]) == 2
    assert served == ["127.0.0.1"]
