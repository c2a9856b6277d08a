"""Claims about the chat: what is sent and shown, stopped, edited, kept, and taken elsewhere."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from fulmen_serving.loading import ServingOptions, load_service


@pytest.fixture
def nano(kit, nano_directory):
    """A real model: random weights, so its answers are long nonsense."""
    pytest.importorskip("fulmen_backend_cpu")
    from fulmen_core.registry import Registry

    options = ServingOptions(nano_directory, guarded=False, max_context=256)
    with contextlib.closing(load_service(options, Registry.discover())) as service, kit.server(service) as url:
        yield url


def test_a_real_model_answers_and_its_figures_are_shown(nano, open_page, say):
    page = open_page(nano)
    say(page, "hello")
    answer = page.locator(".message.assistant")
    assert answer.locator(".prose").inner_text().strip()
    assert "tokens/s" in answer.locator(".figures").inner_text()
    assert page.get_by_role("main").locator(".model").inner_text() == "nano"


def test_an_answer_appears_while_it_is_written_and_can_be_stopped(slow_parrot, open_page, wait_for_answer):
    page = open_page(slow_parrot)
    text = "one two three four five six seven eight nine ten " * 6
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")
    prose = page.locator(".message.assistant .prose")
    prose.filter(has_text="one two").wait_for()
    early = prose.inner_text()
    page.get_by_role("button", name="Stop", exact=True).click()
    wait_for_answer(page)
    assert 0 < len(early) <= len(prose.inner_text()) < len(text)
    assert page.get_by_text("Stopped.").is_visible()
    assert page.get_by_role("button", name="Send", exact=True).is_disabled()


def test_a_message_is_edited_and_sent_again_and_what_followed_is_gone(parrot, open_page, say, wait_for_answer):
    page = open_page(parrot)
    say(page, "first")
    say(page, "second")
    page.locator(".message.user").first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("changed")
    page.keyboard.press("Enter")
    page.get_by_text("first").wait_for(state="detached")
    wait_for_answer(page)
    assert page.locator(".bubble").all_inner_texts() == ["changed"]
    assert [text.strip() for text in page.locator(".prose").all_inner_texts()] == ["changed"]


def test_what_is_sent_before_the_models_name_is_known_waits_for_it(parrot, open_page, say):
    page = open_page(parrot)
    page.route("**/v1/models", lambda route: (time.sleep(0.3), route.continue_()))
    page.goto("about:blank")
    page.goto(parrot)
    say(page, "quick")
    assert page.locator(".prose").inner_text().strip() == "quick"


def test_an_answer_is_asked_for_again(parrot, open_page, say, wait_for_answer, kit):
    page = open_page(parrot)
    say(page, "same words")
    page.locator(".message.assistant").get_by_role("button", name="Answer again").click()
    wait_for_answer(page)
    assert page.locator(".message.assistant").count() == 1


def test_the_system_prompt_and_the_parameters_reach_the_model(open_page, kit):
    runner = kit.runner(context=4096)
    with kit.service(runner) as service, kit.server(service) as url:
        page = open_page(url)
        page.get_by_role("button", name="Parameters").click()
        page.get_by_label("System prompt").fill("You are terse")
        page.get_by_label("Max tokens").fill("3")
        page.get_by_role("textbox", name="Message", exact=True).fill("a long enough message")
        page.keyboard.press("Enter")
        page.get_by_text("reached its limit of tokens").wait_for()
        assert "You are terse" in runner.prompts[-1]


def test_conversations_are_kept_renamed_deleted_and_brought_back(parrot, open_page, say):
    page = open_page(parrot)
    say(page, "remember me")
    page.get_by_role("link", name="New conversation").click()
    say(page, "another one")
    page.reload()
    listed = page.locator(".conversations a")
    listed.first.wait_for()
    assert listed.all_inner_texts() == ["another one", "remember me"]
    page.get_by_role("link", name="remember me").click()
    page.locator(".bubble", has_text="remember me").wait_for()

    page.get_by_role("button", name="Rename “remember me”").click()
    page.get_by_label("Title").fill("kept")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="kept").wait_for()
    page.get_by_role("button", name="Delete “kept”").click()
    page.get_by_role("link", name="kept").wait_for(state="detached")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("link", name="kept").wait_for()


def test_conversations_go_to_a_file_and_into_another_browser(parrot, open_page, say, tmp_path):
    page = open_page(parrot)
    say(page, "take me along")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all conversations").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    [exported] = json.loads(file.read_text())["conversations"]
    assert [message["content"] for message in exported["messages"]] == ["take me along"] * 2

    other = open_page(parrot)
    other.locator("input[type=file]").set_input_files(file)
    other.get_by_role("link", name="take me along").click()
    other.locator(".prose", has_text="take me along").wait_for()


def test_a_file_that_holds_no_conversations_is_refused_in_words(parrot, open_page, tmp_path, expect):
    (tmp_path / "holiday.json").write_text('{"format": "fulmen.conversations", "conversations": [{"messages": [1]}]}')
    page = open_page(parrot)
    page.locator("input[type=file]").set_input_files(tmp_path / "holiday.json")
    expect(page.get_by_text("holiday.json is no file of exported conversations")).to_be_visible()
    expect(page.locator(".conversations a")).to_have_count(0)


def test_what_the_guard_did_is_said(parrot, open_page, say):
    page = open_page(parrot)
    say(page, "how to build a bomb")
    assert page.locator(".prose").inner_text().strip() == "I cannot help with that."
    assert page.get_by_text("The guard ended this answer.").is_visible()


def test_a_refused_request_is_told_and_can_be_repeated(parrot, open_page, wait_for_answer):
    page = open_page(parrot)
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("Max tokens").fill("999999")
    page.get_by_role("textbox", name="Message", exact=True).fill("hi")
    page.keyboard.press("Enter")
    page.get_by_text("maximum context length").wait_for()
    page.get_by_label("Max tokens").fill("")
    page.get_by_label("Max tokens").blur()
    page.get_by_role("button", name="Answer again").click()
    page.locator(".prose", has_text="hi").wait_for()
    wait_for_answer(page)
    assert page.get_by_text("maximum context length").count() == 0
