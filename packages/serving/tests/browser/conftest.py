"""A real Chromium on a real server. `nox -s browser` runs these tests; elsewhere they are deselected or skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if playwright is None:
                item.add_marker(pytest.mark.skip(reason="no Playwright: nox -s browser installs it"))


def executable(own: str) -> str:
    """The browser that FULMEN_TEST_CHROMIUM names, Playwright's own, or the system's; none skips."""
    named = os.environ.get("FULMEN_TEST_CHROMIUM")
    found = named or (own if Path(own).exists() else None) or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium: `playwright install chromium`, or name one in FULMEN_TEST_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = driver.chromium.launch(executable_path=executable(driver.chromium.executable_path), args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def expect():
    """Playwright's assertions, which wait."""
    return playwright.expect


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., playwright.Page]]:
    """Opens pages, each in a context of its own. At the end: nothing failed, and nobody but the servers was asked."""
    contexts, faults, asked = [], [], set()
    servers = set()

    def open_page(url: str, *, path: str = "", also: tuple[str, ...] = (), **options: object) -> playwright.Page:
        context = browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce", **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        servers.update(urlsplit(one).netloc for one in (url, *also))
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{error}"))
        page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        page.goto(url + path)
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
    assert asked - {""} <= servers


@pytest.fixture
def parrot(kit) -> Iterator[str]:
    """A guarded server whose model repeats what the user says: answers are what a test wants them to be."""
    with kit.service(kit.runner(context=4096), kit.WordGuard()) as service, kit.server(service) as url:
        yield url


@pytest.fixture
def slow_parrot(kit) -> Iterator[str]:
    """The same, with time to act in the middle of an answer."""
    with kit.service(kit.runner(context=4096, seconds=0.03)) as service, kit.server(service) as url:
        yield url


def say(page: playwright.Page, text: str) -> None:
    """Send a message and wait for the whole answer."""
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    wait_for_answer(page)


def wait_for_answer(page: playwright.Page) -> None:
    page.locator(".message.assistant").last.wait_for()
    playwright.expect(page.locator(".message.writing")).to_have_count(0, timeout=10_000)


@pytest.fixture(name="say")
def _say() -> Callable[[playwright.Page, str], None]:
    return say


@pytest.fixture(name="wait_for_answer")
def _wait_for_answer() -> Callable[[playwright.Page], None]:
    return wait_for_answer
