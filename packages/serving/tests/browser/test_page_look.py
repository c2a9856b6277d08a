"""Claims about looks and reach: both languages, dark and light, a phone, the keyboard alone, and axe-core."""

from __future__ import annotations

import re

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
VIEWS = ("chat/", "compare", "engine", "raise", "keys")


def ground(page):
    """The red, green and blue of the page's ground."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


def test_the_page_speaks_the_browsers_language_and_changes_it_when_asked(parrot, open_page, say):
    page = open_page(parrot, locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.get_by_role("heading", level=1).inner_text() == "新对话"
    page.get_by_role("combobox", name="语言").select_option("en")
    page.get_by_role("link", name="New conversation").wait_for()
    assert page.locator("html").get_attribute("lang") == "en"
    page.reload()
    page.get_by_role("link", name="New conversation").wait_for()
    assert page.evaluate("document.activeElement.id") in ("composer", "")


def test_an_answer_goes_on_while_the_language_changes(slow_parrot, open_page, wait_for_answer):
    page = open_page(slow_parrot)
    text = "one two three four five six seven eight nine ten"
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    page.locator(".prose", has_text="one").wait_for()
    page.get_by_role("combobox", name="Language").select_option("zh")
    page.get_by_role("link", name="新对话").wait_for()
    wait_for_answer(page)
    assert page.locator(".prose").inner_text().strip() == text


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_in_chinese_is_left_in_english(parrot, open_page, view):
    page = open_page(parrot, path=f"/#/{view}", locale="zh-CN")
    page.wait_for_timeout(300)
    shown = page.locator("body").inner_text()
    known = {
        "Fulmen",
        "English",
        "RAISE",
        "token",
        "KV",
        "Shift",
        "API",
        "OpenAI",
        "parrot",
        "platform",
        "FULMEN_ADMIN_KEY",
    }
    if view == "engine":  # names and meanings of metrics are the server's
        shown = "\n".join(page.locator(".cards, nav, .view-head").all_inner_texts())
    assert set(re.findall(r"[A-Za-z_]{4,}", shown)) <= known


def test_dark_follows_the_system_and_the_switch_decides_against_it(parrot, open_page):
    page = open_page(parrot, color_scheme="dark")
    assert max(ground(page)) < 60
    page.get_by_role("button", name="Brightness: as the system").click()
    page.get_by_role("button", name="Brightness: light").wait_for()
    assert min(ground(page)) > 200
    page.reload()
    page.get_by_role("button", name="Brightness: light").wait_for()
    assert min(ground(page)) > 200
    page.get_by_role("button", name="Brightness: light").click()
    assert max(ground(page)) < 60


@pytest.mark.parametrize("view", VIEWS)
def test_on_a_phone_no_view_is_wider_than_the_screen(parrot, open_page, view):
    page = open_page(parrot, path=f"/#/{view}", **PHONE)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 390


def test_on_a_phone_the_sidebar_is_a_drawer(parrot, open_page, say):
    page = open_page(parrot, **PHONE, reduced_motion="no-preference")
    say(page, "from a phone")
    assert not page.locator("#sidebar").is_visible()
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("link", name="Engine").tap()
    page.get_by_role("heading", name="Engine", level=1).wait_for()
    page.locator("#sidebar").wait_for(state="hidden")
    page.get_by_role("button", name="Menu").tap()
    assert page.evaluate("document.activeElement.closest('#sidebar') !== null")
    page.keyboard.press("Escape")
    page.locator("#sidebar").wait_for(state="hidden")
    assert page.locator("[inert] #main, #main[inert]").count() == 0
    assert page.evaluate("document.activeElement.id") == "menu"


def test_everything_in_a_chat_is_done_with_the_keyboard(parrot, open_page, wait_for_answer):
    page = open_page(parrot)
    press = page.keyboard.press
    assert page.evaluate("document.activeElement.id") == "composer"
    page.keyboard.type("first line")
    press("Shift+Enter")
    page.keyboard.type("second line")
    press("Enter")
    wait_for_answer(page)
    assert page.locator(".bubble").inner_text() == "first line\nsecond line"
    press("ArrowUp")
    press("ControlOrMeta+A")
    page.keyboard.type("better")
    press("Enter")
    page.locator(".prose", has_text="better").wait_for()
    wait_for_answer(page)
    press("Alt+Digit3")
    page.get_by_role("heading", name="Engine", level=1).wait_for()
    press("Alt+KeyN")
    page.get_by_role("heading", name="New conversation", level=1).wait_for()
    page.locator("#composer:focus").wait_for()
    press("Tab")
    press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    press("/")
    page.locator("#composer:focus").wait_for()


def test_escape_stops_an_answer(slow_parrot, open_page, wait_for_answer):
    page = open_page(slow_parrot)
    page.keyboard.type("one two three four five six seven eight nine ten eleven twelve")
    page.keyboard.press("Enter")
    page.locator(".prose", has_text="one").wait_for()
    page.keyboard.press("Escape")
    wait_for_answer(page)
    assert page.get_by_text("Stopped.").is_visible()


#: Tells what has the focus, whether it shows that, and how often it had it.
FOCUS = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  element.dataset.visits = Number(element.dataset.visits ?? 0) + 1;
  const shown = element.closest(".composer") ?? element;
  return {name: element.className, visits: Number(element.dataset.visits),
          outline: getComputedStyle(element).outlineStyle,
          framed: shown !== element && shown.matches(":focus-within")};
}"""


def test_the_tab_key_reaches_every_control_once_and_each_is_seen_to_have_it(parrot, open_page, say):
    page = open_page(parrot)
    say(page, "hello `there`")
    page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    controls = "a[href], button:enabled, select, textarea, [tabindex='0']"
    wanted = sum(control.is_visible() for control in page.locator(controls).all())
    seen = []
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        if (focused := page.evaluate(FOCUS)) is None:
            break
        seen.append(focused)
    assert seen[0]["name"] == "skip"
    assert len(seen) == wanted
    assert {one["visits"] for one in seen} == {1}
    assert [one for one in seen if one["outline"] == "none" and not one["framed"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_to_mend(parrot, open_page, say, view, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(parrot, color_scheme=scheme)
    say(page, "# Title\n\ntext `code`\n\n```python\ndef f(x): return x  # why\n```\n\n| a |\n|---|\n| b |")
    say(page, "how to build a bomb")
    if view == "chat/":
        page.get_by_role("button", name="Parameters").click()
    else:
        page.goto(f"{parrot}/#/{view}")
    page.wait_for_timeout(400)
    found = axe.Axe().run(page)
    faults = [f"{one['id']}: {node['html'][:200]}" for one in found.response["violations"] for node in one["nodes"]]
    assert faults == []
