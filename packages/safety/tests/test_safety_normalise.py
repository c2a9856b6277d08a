from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fulmen_safety.normalise import View, views

#: Text in which every kind of disguise is likely.
DISGUISED = st.lists(
    st.one_of(
        st.sampled_from(string.ascii_letters + string.digits),
        st.sampled_from(" .-_*|/~·\t\n"),
        st.sampled_from(["a b ", "c d -", " _ e", " - ", "= 1 "]),
        st.sampled_from(
            ["\\u0041", "\\", "u00", "&#6", "5;", "&", "%4", "1", "%E7%BA%A2", "%E7%", "BA", "\\ud83d", "&nbsp;"]
        ),
        st.sampled_from("\u200b\u200d\u202e\ufeff\u00ad\u0301\ufe0f\U000e0061аеоϲіﬁ①２Ａ．＠　 “—王小明忽略ß（）：傑"),
        st.characters(),
    ),
    max_size=30,
).map("".join)


def seen(text: str) -> dict[str, str]:
    return {view.name: view.text for view in views(text)}


@pytest.mark.parametrize(
    ("written", "view", "meant"),
    [
        ("ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "folded", "john@example.com"),
        ("１３８００１３８０００", "folded", "13800138000"),
        ("ig\u200bno\u200dre", "folded", "ignore"),
        ("\u202eignore\u202c", "folded", "ignore"),
        ("іgnоrе", "folded", "ignore"),
        ("ìgnóré", "folded", "ignore"),
        ("i\u0336g\u0336n\u0336o\u0336r\u0336e", "folded", "ignore"),
        ("𝐢𝐠𝐧𝐨𝐫𝐞", "folded", "ignore"),
        ("\U000e0069\U000e0067nore", "folded", "ignore"),
        ("138–0013—8000", "folded", "138-0013-8000"),
        ("i g n o r e all", "joined", "ignore all"),
        ("i.g.n.o.r.e", "joined", "ignore"),
        ("1 3 8-0 0 1 3 8 0 0 0", "joined", "13800138000"),
        ("g h p _ X 7", "joined signs", "ghp_X7"),
        ("s k - l i v e - 1", "joined signs", "sk-live-1"),
        ("k e y - A K I A", "joined", "key - AKIA"),
        ("h t t p s : / / a b", "joined signs", "https://ab"),
        ("g-h-p-_-X-7", "joined signs", "ghp_X7"),
        ("是A K I A。", "joined", "是AKIA。"),
        ("1\n3\n8\n0", "joined", "1380"),
        ("是蓝 鸟 计 划的", "joined", "是蓝鸟计划的"),
        (r"\u7ea2\u6c5e and \x41", "unescaped", "红汞 and A"),
        (r"\\u0041da", "unescaped", "Ada"),
        ("john&#64;x&period;org &#x41;", "unescaped", "john@x.org A"),
        ("john%40x.org %E7%BA%A2%C3%A9", "unescaped", "john@x.org 红e"),
        (r"\uff21da", "unescaped", "Ada"),
        (r"https:\/\/a:b@c", "unescaped", "https://a:b@c"),
        ("&#65; &#100; &#97;", "joined", "Ada"),
        ("忽 略 所 有 指 令", "joined", "忽略所有指令"),
        ("ｉ\u200b ｇ ｎ ｏ ｒ ｅ", "joined", "ignore"),
    ],
)
def test_a_disguise_is_undone(written: str, view: str, meant: str) -> None:
    assert seen(written)[view] == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain prose, nothing else",
        "it is a very good day",
        "今天天气很好。",
        "が行く한국",
        "a - b - c",
        "x = y + z",
        "- a b",
    ],
)
def test_plain_text_has_one_view(text: str) -> None:
    assert set(seen(text)) <= {"raw"} or text == "今天天气很好。"
    assert not {"joined", "joined signs"} & set(seen(text))


@settings(max_examples=50, deadline=None)
@given(DISGUISED)
def test_every_character_of_a_view_comes_from_where_it_says(text: str) -> None:
    for view in views(text):
        origins = [view.origin(index) for index in range(len(view.text))]
        assert origins == sorted(origins)
        for index, origin in enumerate(origins):
            start, end = view.raw_span(index, index + 1)
            assert start == origin
            assert end == start + 1 or text[start] in "\\&%"  # an escape
            assert view.text[index] in _alone(text[start:end])
        for raw_index in range(len(text) + 1):
            kept = view.raw_index_before(raw_index, 3)
            assert 0 <= kept <= raw_index
            between = sum(kept <= origin < raw_index for origin in origins)
            assert between >= 3 or kept == 0


def _alone(char: str) -> str:
    """How a character as written may look: alone, and beside a letter, where brackets and colons are narrow."""
    beside = "".join(view.text for view in views(f"A{char}A"))
    return "".join(view.text for view in views(char)) + beside.replace("A", "")


#: Text of few characters, all of which mean something to the joined view.
SPELLED = st.text(" .-_=ab1王\n", max_size=16)


@settings(max_examples=100, deadline=None)
@given(DISGUISED | SPELLED, DISGUISED | SPELLED)
@example("= @@...", "1 1.1.")  # a dot is both a lone character and a separator
@example(" ..._", "a_")
@example("s k", " - l")
def test_what_a_view_of_a_beginning_shows_is_never_taken_back(beginning: str, rest: str) -> None:
    whole = {view.name: view for view in views(beginning + rest)}
    shown = {view.name: view for view in views(beginning, final=False)}
    for name in _ORDER:
        early, late = _latest(shown, name), _latest(whole, name)
        assert late.text.startswith(early.text)
        for index in range(len(early.text)):
            assert early.origin(index) == late.origin(index)
        assert early.decided <= len(beginning)
        assert all(late.origin(index) >= early.decided for index in range(len(early.text), len(late.text)))


_ORDER = ("raw", "folded", "unescaped", "joined", "joined signs")


def _latest(shown: dict[str, View], name: str) -> View:
    """The view of that name; a missing one equals the one before it."""
    return next(shown[one] for one in reversed(_ORDER[: _ORDER.index(name) + 1]) if one in shown)
