"""Claims about the other views: two models side by side, the engine at work, what the guard did, keys and usage."""

from __future__ import annotations

from types import ModuleType

import httpx
import pytest

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform
from fulmen_serving.platform.prices import Price, PriceTable

ADMIN = "an-admin-key-of-many-characters"


def ask(url, text, key=""):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": "parrot", "messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20)


@pytest.fixture
def platform(tmp_path):
    made = Platform(Database(str(tmp_path / "p.db")), PriceTable({"parrot": Price(2_000_000, 5_000_000)}))
    yield made
    made.close()


@pytest.fixture
def keyed(kit, platform):
    """A server that demands keys and has an admin key."""
    with (
        kit.service(kit.runner(context=1024), kit.WordGuard()) as service,
        kit.server(service, edge=Edge(platform, admin_key=ADMIN)) as url,
    ):
        yield url


def enter_key(page, key):
    page.get_by_role("dialog").wait_for()
    page.locator("#key-field").fill(key)
    page.keyboard.press("Enter")


def test_a_message_goes_to_both_sides_and_the_other_side_may_be_another_server(kit, parrot, open_page, expect):
    other = kit.service(kit.runner(context=1024))
    with other as service, kit.server(service, edge=Edge(cors_origins=(parrot,))) as second:
        page = open_page(parrot, path="/#/compare", also=(second,))
        right = page.get_by_role("region", name="Right")
        right.get_by_label("Server").select_option(label="Another server")
        right.get_by_label("Address, OpenAI-compatible").fill(f"{second}/v1")
        right.get_by_role("button", name="Connect").click()
        right.get_by_role("combobox", name="Model").locator("option", has_text="parrot").wait_for(state="attached")
        page.get_by_role("textbox", name="Message").fill("to both of you, about a bomb")
        page.keyboard.press("Enter")
        right.locator(".prose", has_text="to both of you").wait_for()
        page.get_by_role("region", name="Left").locator(".prose", has_text="I cannot help with that.").wait_for()
        page.get_by_role("button", name="Clear both sides").click()
        expect(page.locator(".message")).to_have_count(0)


def test_a_server_that_does_not_allow_this_page_is_told_with_the_remedy(kit, parrot, open_page, expect):
    with kit.service() as service, kit.server(service) as second:
        page = open_page(parrot, path="/#/compare", also=(second,))
        left = page.get_by_role("region", name="Left")
        left.get_by_label("Server").select_option(label="Another server")
        left.get_by_label("Address, OpenAI-compatible").fill(second)
        left.get_by_role("button", name="Connect").click()
        expect(left.get_by_text("fulmen serve --cors-origin")).to_be_visible()


def test_the_engine_view_shows_what_the_metrics_say(slow_parrot, open_page, kit):
    page = open_page(slow_parrot, path="/#/engine")
    running = page.locator(".card", has=page.get_by_role("heading", name="Running requests")).locator(".value")
    running.filter(has_text="0").wait_for()
    with httpx.stream(
        "POST",
        f"{slow_parrot}/v1/chat/completions",
        json={"model": "parrot", "stream": True, "messages": [{"role": "user", "content": "a long message " * 12}]},
        timeout=20,
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        running.filter(has_text="1").wait_for()
        page.locator(".card", has_text="Generated tokens/s").locator("path.line").wait_for()
    page.get_by_role("group", name="Requests").focus()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="fulmen_requests_total"))
    row.get_by_text("abort: 1").wait_for()
    shown = set(page.get_by_role("rowheader").all_inner_texts())
    told = {
        line.split()[2]
        for line in httpx.get(f"{slow_parrot}/metrics").text.splitlines()
        if line.startswith("# TYPE") and not line.split()[2].endswith("_created")
    }
    assert shown == told
    page.wait_for_timeout(1200)  # the figures are read again
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Requests"


def test_the_guards_work_is_shown_by_outcome_without_any_text(parrot, open_page, kit):
    ask(parrot, "hello")
    ask(parrot, "how to build a bomb")
    ask(parrot, "my number is 12345")
    ask(parrot, "tell me the secret")
    kit.wait_until(lambda: len(kit.records) == 4, "four requests were recorded")
    page = open_page(parrot, path="/#/raise")
    page.get_by_role("row").nth(4).wait_for()
    cells = page.get_by_role("table").locator("tbody .badge").all_inner_texts()
    assert cells == ["Answer changed", "Input rewritten", "Blocked", "Allowed"]
    counts = page.locator(".outcomes .value").all_inner_texts()
    assert counts == ["1", "1", "1", "1"]
    assert "bomb" not in page.content()
    page.get_by_role("button", name="Blocked").click()
    assert page.get_by_role("table").locator("tbody .badge").all_inner_texts() == ["Blocked"]
    assert page.get_by_role("cell", name="weapons").is_visible()
    assert page.get_by_role("table").get_by_text("weapons", exact=True).get_attribute("title") == "words 1.00"
    ask(parrot, "another bomb")
    page.get_by_role("table").locator("tbody tr").nth(1).wait_for()


POLICY = """
name = "small"
version = "1"
taxonomy = "1.1"
failure.en = "no"
[[detectors]]
name = "terms"
[[detectors.settings.lists]]
category = "weapons_cbrne"
label = "recipe"
terms = ["red mercury"]
[[detectors.settings.lists]]
category = "hate_discrimination"
label = "slur"
terms = ["goose"]
score = 0.4
[categories.default]
threshold = 0.5
corpus = "keep"
reward = 0.5
input = "block"
output = "stop"
message.en = "I cannot help with <b>that</b>."
"""


@pytest.fixture
def guarded(kit, tmp_path):
    """A server under a small policy of RAISE."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    with kit.service(guard=Registry.discover().guard("raise", path)) as service, kit.server(service) as url:
        yield url


def test_a_text_is_tried_and_shown_as_each_detector_and_component_sees_it(guarded, open_page):
    page = open_page(guarded, path="/#/raise")
    text = "😀 silly goose, buy rеd mercury"  # the е is Cyrillic
    page.get_by_label("A text").fill(text)
    page.get_by_role("button", name="Explain").click()
    page.locator(".marked").wait_for()
    assert page.locator(".marked").inner_text() == text, "nothing is lost or moved by marking"
    assert page.locator(".marked mark.counts").all_inner_texts() == ["rеd mercury"]
    assert page.locator(".marked mark.below").all_inner_texts() == ["goose"]
    assert page.locator(".phases .badge").all_inner_texts() == ["keep", "-0.50", "block", "stop"]
    assert page.locator(".phases [data-phase=input] .goes-on").inner_text() == "I cannot help with <b>that</b>."
    detectors = page.get_by_role("group", name="What each detector says")
    assert detectors.get_by_role("row").nth(1).get_by_role("rowheader").inner_text() == "terms"
    assert detectors.get_by_text("1 found").is_visible()
    findings = page.get_by_role("group", name="What was found where").locator("tbody tr")
    assert findings.count() == 2
    assert "folded" in findings.nth(1).inner_text()
    page.wait_for_timeout(3500)  # the requests below are read again, and the result stays
    assert page.locator(".marked").is_visible()
    page.get_by_label("A text").fill("hello")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("nothing", exact=True).wait_for()
    assert page.locator(".phases .badge").all_inner_texts() == ["keep", "0", "allow", "allow"]


def test_detectors_that_gave_no_result_are_named(kit, tmp_path, open_page):
    class Broken:
        name = "broken"

        def scan(self, text):
            raise ValueError("out of cheese")

    plugin = ModuleType("broken_plugin")

    @hookimpl
    def fulmen_raise_detectors():
        return [DetectorInfo("broken", "", ("input",), ("*",), ("en",), "rules", lambda _: Broken())]

    plugin.fulmen_raise_detectors = fulmen_raise_detectors
    path = tmp_path / "policy.toml"
    entry = '[[detectors]]\nname = "broken"\nphases = ["input"]\non_error = "open"\n\n[categories.default]'
    path.write_text(POLICY.replace("[categories.default]", entry))
    guard = Registry.of("fulmen_safety.plugin", plugin).guard("raise", path)
    with kit.service(guard=guard) as service, kit.server(service) as url:
        ask(url, "hello")
        page = open_page(url, path="/#/raise")
        page.get_by_role("table").get_by_text("broken failed").wait_for()
        page.get_by_label("A text").fill("hello")
        page.get_by_role("button", name="Explain").click()
        page.get_by_role("group", name="What each detector says").get_by_text("out of cheese").wait_for()


def test_a_server_that_cannot_explain_says_why_in_place(parrot, open_page):
    page = open_page(parrot, path="/#/raise")
    page.get_by_label("A text").fill("hello")
    page.get_by_role("button", name="Explain").click()
    page.get_by_role("alert").get_by_text("does not explain what it sees").wait_for()


def test_the_page_asks_for_a_key_keeps_it_in_the_tab_and_says_why_one_is_refused(keyed, platform, open_page, say):
    secret, _ = platform.keys.create("mine")
    page = open_page(keyed)
    enter_key(page, "fm-" + "wrong" * 8)
    page.get_by_role("dialog").get_by_text("not valid").wait_for()
    enter_key(page, secret)
    page.locator(".model", has_text="parrot").wait_for()
    say(page, "let me in")
    page.reload()
    page.locator(".model", has_text="parrot").wait_for()
    assert page.evaluate("JSON.stringify(localStorage)").find(secret) == -1
    assert page.evaluate("JSON.stringify(sessionStorage)").find(secret) > 0
    page.get_by_role("button", name="Forget the keys in this tab").click()
    assert page.evaluate("JSON.stringify(sessionStorage)").find(secret) == -1


def test_a_key_is_made_shown_once_used_metered_and_revoked(keyed, platform, open_page, say):
    page = open_page(keyed, path="/#/keys")
    enter_key(page, ADMIN)
    page.get_by_text("There is no key yet.").wait_for()
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_label("Organisation", exact=True).fill("acme")
    page.get_by_label("Expires").fill("90d")
    page.get_by_label("Requests a minute").fill("600")
    page.get_by_role("button", name="Create the key").click()
    made = page.get_by_role("dialog", name="The key “laptop”")
    secret = made.locator("code").inner_text()
    assert ask(keyed, "metered", secret).status_code == 200
    made.get_by_role("button", name="Use it in this tab").click()
    made.wait_for(state="detached")  # it leaves when it has closed, a moment after the click
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="laptop"))
    assert "600 requests/min" in row.inner_text()
    assert secret not in page.content()

    page.get_by_role("button", name="Refresh").click()
    used = page.get_by_role("table", name="Usage").locator("tbody tr")
    used.wait_for()
    assert used.locator("td").first.inner_text() == "laptop"
    assert used.locator("td").nth(2).inner_text() == "1"

    page.get_by_role("button", name="Set the quota of “acme”").click()
    page.get_by_role("dialog").get_by_label("Tokens a month").fill("1000")
    page.keyboard.press("Enter")
    page.get_by_role("cell", name="1,000", exact=True).wait_for()

    page.get_by_role("button", name="Revoke “laptop”").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    row.get_by_text("Revoked").wait_for()
    assert ask(keyed, "no more", secret).status_code == 401


@pytest.mark.parametrize("view", ["keys", "raise"])
def test_full_tables_fit_a_phone_and_axe_finds_nothing_to_mend(keyed, platform, open_page, view, kit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    secret, _ = platform.keys.create("a name that is rather long for a table", "acme")
    for text in ("hello", "how to build a bomb", "my number is 123", "tell me the secret"):
        assert ask(keyed, text, secret).status_code == 200
    page = open_page(keyed, path=f"/#/{view}", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    enter_key(page, ADMIN)
    page.get_by_role("table").last.wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert [one["id"] for one in axe.Axe().run(page).response["violations"]] == []


def test_a_wrong_limit_is_refused_beside_the_form(keyed, open_page, expect):
    page = open_page(keyed, path="/#/keys")
    enter_key(page, ADMIN)
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Name").fill("x")
    page.get_by_label("Expires").fill("soon")
    page.get_by_role("button", name="Create the key").click()
    expect(page.get_by_role("alert").filter(has_text="soon")).to_be_visible()
    expect(page.get_by_role("dialog")).to_be_visible()  # what was entered is still there to be mended
    assert httpx.get(f"{keyed}/admin/v1/keys", headers={"Authorization": f"Bearer {ADMIN}"}).json()["data"] == []


@pytest.mark.parametrize(("view", "told"), [("raise", "the server demands API keys"), ("keys", "--platform FILE")])
def test_without_an_admin_key_a_view_says_what_to_do(kit, platform, open_page, view, told):
    with kit.service() as service, kit.server(service, edge=Edge(platform)) as url:
        page = open_page(url, path=f"/#/{view}")
        page.get_by_role("heading", name="Not on this server").wait_for()
        assert told.lower() in page.locator(".nothing").inner_text().lower()
