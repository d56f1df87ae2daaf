"""The owner's controls: who may use them, and that no page of another site can, in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Request
from starlette.routing import Route
from tests.apps.window.browser import TOKEN, misled, opened
from tests.apps.window.node_kit import PLACES, Node, owned

from assay.apps.window.owner import MOST_SAID

NAME = "evil.example"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with an owner."""
    with owned(tmp_path_factory.mktemp("node")) as found:
        yield found


def doors(node: Node) -> list[tuple[str, str]]:
    """Method and path of all that is the owner's, as the application has it."""
    routes = [each for each in node.app.routes if isinstance(each, Route) and each.path.startswith("/window/owner/")]
    assert len(routes) >= 10
    return [
        (method, each.path.replace("{name}", "tiny"))
        for each in routes
        for method in sorted(set(each.methods or ()) - {"HEAD"})
    ]


def changing(node: Node) -> list[tuple[str, str]]:
    """Those that change something."""
    return [(method, path) for method, path in doors(node) if method != "GET"]


def untouched(node: Node) -> None:
    """Nobody has changed anything."""
    assert node.local.load.places == PLACES
    assert node.ask("GET", "/window/owner/models").json()["fetching"] is None
    found = node.ask("GET", "/window/owner/doctor").json()
    assert (found["running"], found["at"]) == (False, None)


def test_only_the_owner_passes(node: Node) -> None:
    """No token, another one, half of it, or one elsewhere than in its header: nothing is told and nothing done."""
    for method, path in doors(node):
        for headers in (
            {},
            {"authorization": "Bearer " + "x" * 43},
            {"authorization": f"Bearer {TOKEN[:-1]}"},
            {"authorization": f"Bearer {TOKEN}é".encode("latin-1")},
            {"cookie": f"assay-owner={TOKEN}"},
        ):
            said = httpx.request(method, f"{node.url}{path}?owner={TOKEN}", headers=headers, trust_env=False)
            assert said.status_code == 403, (method, path)
            assert said.json()["error"]["message"].startswith("this is the owner's: open the address")
            assert not set(said.headers) & {"access-control-allow-origin", "set-cookie"}
    untouched(node)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_no_other_site_passes_with_the_token(node: Node, headers: dict[str, str]) -> None:
    """Should it ever leak, pages from elsewhere still cannot use it, those of another port of this machine neither."""
    for method, path in doors(node):
        more = {} if method == "GET" else {"json": {}}
        said = node.ask(method, path, headers=headers, **more)
        assert (said.status_code, "another site" in said.text) == (403, True), (method, path)
    untouched(node)


def test_the_windows_own_pages_pass(node: Node) -> None:
    """As a browser sends it from there."""
    own = {"origin": node.url, "sec-fetch-site": "same-origin"}
    said = node.ask("POST", "/window/owner/sale", json={"places": PLACES}, headers=own)
    assert (said.status_code, said.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_forms_can_send_is_refused(node: Node, kind: str) -> None:
    """Only JSON that says so is taken."""
    for method, path in changing(node):
        said = node.ask(method, path, headers={"content-type": kind}, content=b'{"name": "tiny"}')
        assert (said.status_code, "application/json" in said.text) == (400, True), (method, path)
    untouched(node)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"nonsense", 400),
        (b"[" * 10_000, 400),
        (b'{"unknown": 1}', 400),
        (b'{"a": "' + b"x" * MOST_SAID + b'"}', 413),
    ],
    ids=["nothing", "list", "no JSON", "deep", "unknown member", "large"],
)
def test_other_bodies_are_refused(node: Node, body: bytes, status: int) -> None:
    """By every control, with what to do."""
    for method, path in changing(node):
        said = node.ask(method, path, headers={"content-type": "application/json"}, content=body)
        assert said.status_code == status, (method, path, said.text)
        assert ": " in said.json()["error"]["message"]
    untouched(node)


def test_reading_changes_nothing(node: Node) -> None:
    """GET and HEAD of every path of the owner's, with the token and all that a change would need."""
    for _, path in doors(node):
        for method in ("GET", "HEAD", "OPTIONS"):
            node.ask(method, f"{path}?name=tiny&places=0", headers={"content-type": "application/json"})
    untouched(node)


@contextmanager
def attacker(page: str) -> Iterator[str]:
    """A page of another site, which is a server of its own."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_forms_of_another_site(node: Node, browser: Browser) -> None:
    """A page of another site posts a form whose body reads as JSON: it is refused, and the answer says so."""
    for name, value in (("models", '"name":"smollm2-135m'), ("sale", '"places":0'), ("doctor", '"a":0')):
        form = f"""<form method=post enctype=text/plain action="{node.url}/window/owner/{name}">
            <input name='{{{value},"' value='":""}}'></form><script>document.forms[0].submit()</script>"""
        with attacker(form) as site:
            page = browser.new_page()
            with page.expect_response(f"{node.url}/window/owner/{name}") as seen:
                page.goto(site)
            assert seen.value.status == 403
            page.close()
    untouched(node)


_TRIES = """
async (target) => {
  const json = { "Content-Type": "application/json", "Authorization": "Bearer TOKEN" };
  const tries = [
    { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: '{"places":0}' },
    { method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({ places: 0 }) },
    { method: "POST", headers: json, body: '{"places":0}' },
    { method: "DELETE", headers: json, body: "{}" },
    { method: "GET", headers: { Authorization: "Bearer TOKEN" } },
    { method: "GET", credentials: "include" },
  ];
  const read = [];
  for (const each of tries) {
    try {
      const answer = await fetch(target, each);
      read.push(answer.type === "opaque" ? "opaque" : `${answer.status}: ${await answer.text()}`);
    } catch (error) {
      read.push(error.name);
    }
  }
  return read;
}
""".replace("TOKEN", TOKEN)


def test_scripts_of_another_site(node: Node, browser: Browser) -> None:
    """Even one that knows the token can neither change nor read anything: browsers ask first, and hear no."""
    with attacker("<title>evil</title>") as site:
        page = browser.new_page()
        page.goto(site)
        for path in ("sale", "models", "fetching", "models/tiny", "doctor", "node", "log"):
            read = page.evaluate(_TRIES, f"{node.url}/window/owner/{path}")
            assert read == ["opaque", "opaque", "TypeError", "TypeError", "TypeError", "TypeError"]
        page.close()
    untouched(node)


def test_another_site_asks_nothing(node: Node, browser: Browser) -> None:
    """Not even a question as bytes without a type, which browsers send without asking first."""
    ask = """async (target) => {
        const body = new TextEncoder().encode('{"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}');
        return (await fetch(target, { method: "POST", mode: "no-cors", body })).type;
    }"""
    with attacker("<title>evil</title>") as site:
        page = browser.new_page()
        page.goto(site)
        with page.expect_response(f"{node.url}/v1/chat/completions") as seen:
            assert page.evaluate(ask, f"{node.url}/v1/chat/completions") == "opaque"
        assert seen.value.status == 403
        page.close()


def test_frames_of_another_site(node: Node, browser: Browser) -> None:
    """No page can show the owner's within itself, to have clicks fall on it."""
    with attacker(f'<iframe src="{node.url}/node"></iframe>') as site:
        page = browser.new_page()
        page.goto(site, wait_until="networkidle")
        assert all(not frame.url.startswith(node.url) for frame in page.frames)
        page.close()


def test_a_name_that_is_led_here(node: Node, browser: Browser) -> None:
    """DNS rebinding: for the browser the attacker's page and this program are one site. It refuses the name, so
    that the page gets nothing, whatever it knows."""
    port = urlsplit(node.url).port
    with misled(browser, NAME) as other:
        page = other.new_page()
        answer = page.goto(f"http://{NAME}:{port}/node")
        assert answer is not None
        assert (answer.status, "this machine's" in answer.text()) == (403, True)
        read = page.evaluate(_TRIES, f"http://{NAME}:{port}/window/owner/sale")
        assert read[:2] == ["opaque", "opaque"] or all(each.startswith("403") for each in read[:2])
        assert all(each.startswith("403: ") and "this machine's" in each for each in read[2:])
    untouched(node)


def test_the_token_stays_in_the_tab(node: Node, browser: Browser) -> None:
    """Taken out of the address; in no request but in its header; in no referrer and no log; gone with the tab."""
    sent: list[Request] = []
    with opened(browser, node.url) as page:
        page.on("request", lambda request: sent.append(request))
        page.goto(f"/#owner={TOKEN}")
        page.wait_for_url(f"{node.url}/")
        page.goto("/node")
        page.wait_for_selector("#owner:not([hidden])")
        page.reload()
        page.wait_for_selector("#owner:not([hidden])")
        page.go_back()
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie + JSON.stringify(localStorage)").find(TOKEN) == -1
        beside = page.context.new_page()
        beside.goto("/node")
        beside.wait_for_selector("#stranger:not([hidden])")
        assert beside.locator("#owner").is_hidden()
    assert any(each.headers.get("authorization") == f"Bearer {TOKEN}" for each in sent)
    for each in sent:
        assert TOKEN not in urlsplit(each.url)._replace(fragment="").geturl()
        assert TOKEN not in each.headers.get("referer", "")
        assert TOKEN not in (each.post_data or "")
    assert not any(TOKEN in line.text for line in node.recent.after(0))


def test_strangers_see_nothing_of_the_owners(node: Node, browser: Browser) -> None:
    """Without a token nothing is asked for; with a wrong one nothing is told. Both are told how to get it, and a right
    address in the same tab opens the page."""
    sent: list[Request] = []
    with opened(browser, node.url) as page:
        page.on("request", lambda request: sent.append(request))
        page.goto("/node")
        page.wait_for_selector("#stranger:not([hidden])")
        assert "assay window --url" in page.inner_text("#stranger")
        assert not any("/window/owner/" in each.url for each in sent)
        page.goto(f"/node#owner={TOKEN}")
        page.wait_for_selector("#owner:not([hidden])")
        assert page.locator("#stranger").is_hidden()
    wrong = browser.new_page(base_url=node.url)
    wrong.goto(f"/node#owner={'x' * 43}")
    wrong.wait_for_selector("#stranger:not([hidden])")
    wrong.wait_for_selector("#state:has-text('this is the owner')")
    assert wrong.locator("#owner").is_hidden()
    assert node.local.engines.keys() == {"tiny"}
    assert "tiny" not in wrong.inner_text("body")
    wrong.close()


def test_no_token_without_a_file(tmp_path: Path) -> None:
    """A file that holds something else is no token, and nothing is opened with it."""
    from assay.apps.window.owner import Owner
    from assay.core.errors import ConfigError

    for text in (b"", b"short\n", b"\xff" * 43, b"a" * 44):
        (tmp_path / "token").write_bytes(text)
        with pytest.raises(ConfigError, match="token"):
            Owner.of(tmp_path / "token", lambda _path, _text: None)
