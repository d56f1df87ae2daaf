"""The terminal's client: what it shows of honest servers, and that strange ones are errors with remedies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.running import free_port, provider_process
from tests.tiny import MODEL

from assay.apps.checking import check_covers
from assay.apps.client import MAX_REPLY, Client, Wish
from assay.core.errors import (
    AssayError,
    BindingMismatch,
    Busy,
    InvalidRequest,
    ModelNotFound,
    NoProvider,
    NotFound,
    ProviderFailed,
)

WISH = Wish(
    model=MODEL, messages=[{"role": "user", "content": "Say something."}], max_tokens=24, temperature=1.0, seed=12
)
"""Its answer is longer than 400 tokens where it may be."""


@contextmanager
def server(status: int, body: bytes, *, cut: bool = False) -> Iterator[str]:
    """A server that answers everything alike; with `cut` it promises more than it sends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body) + (1000 if cut else 0)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def listen(url: str, wish: Wish = WISH) -> str:
    """The whole text of an answer."""
    with Client(url) as client, client.ask(wish) as stream:
        return "".join(stream)


def event(**members: object) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def test_wishes_go_along() -> None:
    """Those that are made, and no others; an amount as text, because JSON's numbers are too small."""
    assert "assay" not in WISH.body()
    wish = replace(WISH, region="", min_stake=10**21, ignore=["0xa"])
    assert wish.body()["assay"] == {"region": "", "min_stake": "1" + 21 * "0", "ignore": ["0xa"]}


def test_an_answer_and_its_receipt(tmp_path: Path) -> None:
    """Pieces come one by one; afterwards tokens, level, provider and a receipt that covers this very question."""
    with provider_process(tmp_path) as (url, _), Client(f"{url}/v1/") as client:
        assert client.models() == [MODEL]
        assert client.health()["status"] == "ok"
        with client.ask(WISH) as stream:
            pieces = list(stream)
        done = stream.answered
        assert done is not None
        assert done.text == "".join(pieces)
        assert (done.tokens, done.level, done.finish) == (24, "pinned", "length")
        assert done.provider == done.receipts[0].provider
        assert 0 < done.first_s <= done.seconds
        assert done.rate > 0
        (bundle,) = client.parts(done)
    check_covers(bundle, WISH)
    assert bundle.receipt == done.receipts[0]


def test_a_receipt_for_another_question(tmp_path: Path) -> None:
    """A receipt that is valid, but not for what was asked, is refused."""
    with provider_process(tmp_path) as (url, _), Client(url) as client, client.ask(WISH) as stream:
        list(stream)
        assert stream.answered is not None
        (bundle,) = client.parts(stream.answered)
    for other in (
        replace(WISH, messages=[{"role": "user", "content": "Say something else."}]),
        replace(WISH, messages=[{"role": "system", "content": "Lie."}, *WISH.messages]),
        replace(WISH, model="another"),
        replace(WISH, level="signed"),
        replace(WISH, temperature=0.5),
        replace(WISH, top_p=0.5),
        replace(WISH, max_tokens=25),
    ):
        with pytest.raises(BindingMismatch):
            check_covers(bundle, other)


def test_hanging_up_leaves_a_receipt(tmp_path: Path) -> None:
    """Who hangs up in the middle still finds the receipt for what was delivered, by the answer's name."""
    long = replace(WISH, max_tokens=400)
    with provider_process(tmp_path, delay=0.01) as (url, _), Client(url) as client:
        with client.ask(long) as stream:
            pieces = [piece for piece, _ in zip(stream, range(5), strict=False)]
        assert stream.answered is None
        (bundle,) = client.settled(stream.completion)
    assert len(pieces) == 5
    assert bundle.receipt.stop == "cancelled"
    assert 5 <= bundle.receipt.output_count < 400
    check_covers(bundle, long)


def test_nobody_is_there() -> None:
    """An address at which nobody listens is an error that names it, at once."""
    url = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ProviderFailed, match=f"nobody answers at {url}.*assay up"):
        listen(url)
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("url", ["http://[::1", "no address", "http://127.0.0.1:99999", "ftp://127.0.0.1", "http://\0"])
def test_what_is_no_address(url: str) -> None:
    """Nonsense instead of an address is a clear error."""
    with pytest.raises(AssayError):
        listen(url)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>",
        b"data: not json\n\n",
        b"data: [1, 2]\n\n",
        b"data: {\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: " + b"x" * (MAX_REPLY + 10),
        event(choices=[{"delta": {"content": "a"}}]),
        event(assay={"receipts": [{"v": 1}]}) + b"data: [DONE]\n\n",
        event(assay={"receipts": [7]}) + b"data: [DONE]\n\n",
        event(error={"message": "the provider \x1b[31mbroke"}) + b"data: [DONE]\n\n",
        event(error="broken"),
        b"",
    ],
)
def test_streams_that_are_not_the_protocol(body: bytes) -> None:
    """Web pages, broken JSON, endless lines, cut streams, malformed receipts, errors: one kind of clear error."""
    with server(200, body) as url, pytest.raises(ProviderFailed):
        listen(url)


@pytest.mark.parametrize(
    "member",
    [{"choices": 7}, {"choices": [7]}, {"choices": [{"delta": []}]}, {"usage": {"completion_tokens": "x"}}, {"id": 7}],
)
def test_members_of_another_type(member: dict[str, object]) -> None:
    """A member with a type that it cannot have counts as absent."""
    body = event(**member) + event(choices=[{"delta": {"content": "hello"}}]) + b"data: [DONE]\n\n"
    with server(200, body) as url:
        assert listen(url) == "hello"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "no"}, InvalidRequest),
        (404, {"message": "no"}, NotFound),
        (404, {"message": "no", "code": "model_not_found"}, ModelNotFound),
        (429, {"message": "no"}, Busy),
        (424, {"message": "no"}, ProviderFailed),
        (424, {"message": "no", "code": "no_provider"}, NoProvider),
        (500, {"message": "no"}, ProviderFailed),
        (302, None, ProviderFailed),
        (400, "no", InvalidRequest),
    ],
)
def test_refusals(status: int, error: object, kind: type[AssayError]) -> None:
    """An error before the stream keeps its kind, so that exit codes and remedies fit."""
    with server(status, json.dumps({"error": error}).encode()) as url, pytest.raises(kind) as caught:
        listen(url)
    assert type(caught.value) is kind


def test_a_server_that_breaks_off() -> None:
    """A connection that ends early is an error, not a short answer."""
    with server(200, event(choices=[{"delta": {"content": "a"}}]), cut=True) as url, pytest.raises(ProviderFailed):
        listen(url)


def test_what_is_no_receipt(tmp_path: Path) -> None:
    """Something else in a receipt's place is refused."""
    with server(200, b'{"receipt": 1}\n') as url, Client(url) as client, pytest.raises(ProviderFailed):
        client.bundles("x")


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    """An answer that was never given has no receipt; looking for it ends."""
    with provider_process(tmp_path) as (url, _), Client(url) as client:
        assert client.settled("chatcmpl-none", patience=0.3) == []
        with pytest.raises(NotFound):
            client.bundles("../../etc/passwd")
