"""What the other tests here rely on: that a fault in a page is seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser

from support.browser import Visit

FILES = {
    "/favicon.ico": "",
    "/error.js": "console.error('it hurts')",
    "/throw.js": "throw new Error('nobody caught it')",
    "/alert.js": "alert('boo')",
    "/fetch.js": "fetch('http://127.0.0.2:1/')",
    "/well": "<p>hello",
    "/error": '<script src="/error.js"></script>',
    "/throw": '<script src="/throw.js"></script>',
    "/alert": '<script src="/alert.js"></script>',
    "/fetch": '<script src="/fetch.js"></script>',
    "/inline": "<script>1</script>",
    "/elsewhere": '<img src="http://127.0.0.2:1/x.png" alt="">',
    "/missing": '<img src="/no-such.png" alt="">',
}


class Handler(BaseHTTPRequestHandler):
    """Pages with one fault each, under the console's policy."""

    def do_GET(self) -> None:
        body = FILES.get(self.path)
        self.send_response(404 if body is None else 200)
        is_script = self.path.endswith(".js")
        self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        self.wfile.write((body or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def faults(browser: Browser, site: str, path: str) -> list[str]:
    visit = Visit(browser, site)
    page = visit.page()
    page.goto(path, wait_until="networkidle")
    visit.context.close()
    return visit.faults


def test_a_fault_of_any_kind_is_seen(browser: Browser, site: str) -> None:
    for path, said in {
        "/error": "console: it hurts",
        "/throw": "nobody caught it",
        "/alert": "dialog: boo",
        "/fetch": "http://127.0.0.2:1/",
        "/elsewhere": "elsewhere: http://127.0.0.2:1/x.png",
        "/inline": "Content Security Policy",
        "/missing": "status of 404",
    }.items():
        seen = faults(browser, site, path)
        assert any(said in fault for fault in seen), (path, seen)


def test_a_page_without_one_passes(browser: Browser, site: str) -> None:
    assert faults(browser, site, "/well") == []


def test_a_visit_fails_by_its_faults_but_for_those_it_expects(browser: Browser, site: str) -> None:
    visit = Visit(browser, site)
    visit.expect_error("it hurts")
    page = visit.page()
    page.goto("/error", wait_until="networkidle")
    visit.check()
    page.goto("/throw", wait_until="networkidle")
    with pytest.raises(AssertionError, match="nobody caught it"):
        visit.check()
    visit.context.close()
