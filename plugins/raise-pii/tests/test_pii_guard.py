"""The detector inside the guard: the four places where personal data is met."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.registry import Registry
from fulmen_safety.guard import RaiseGuard

POLICY = """
name = "pii"
version = "1"
taxonomy = "1.1"
failure.en = "no"
[[detectors]]
name = "pii"
[categories.default]
threshold = 0.5
corpus = "redact"
reward = 0.5
input = "rewrite"
output = "redact"
"""
SECRETS = [
    "13800138000",
    "john@x.com",
    "11010519491231002X",
    "4111 1111 1111 1111",
    "GB82WEST12345698765432",
    "8.8.8.8",
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> RaiseGuard:
    path: Path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    made = Registry.of("fulmen_safety.plugin", "fulmen_raise_pii.plugin").guard("raise", path)
    assert isinstance(made, RaiseGuard)
    return made


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([*SECRETS, "call ", "我是", "，", ". ", "1", "a", "@", "2023 ", "I "]), max_size=8).map(
        "".join
    ),
    st.lists(st.integers(0, 120), max_size=20),
)
def test_no_planted_secret_leaks_from_any_cutting(guard: RaiseGuard, answer: str, places: list[int]) -> None:
    whole = guard.judge_output([], answer)
    stream = guard.open_output([])
    sent, last = "", 0
    for place in sorted(place for place in places if place <= len(answer)):
        sent += stream.feed(answer[last:place]).text
        last = place
        assert whole.text.startswith(sent)
    sent += stream.feed(answer[last:]).text + stream.finish().text
    assert sent == whole.text


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_redacted_in_corpus_input_and_output(guard: RaiseGuard, secret: str) -> None:
    text = f"这是{secret}，好"
    assert secret not in guard.judge_document(text).text
    assert secret not in guard.judge_input([{"role": "user", "content": text}]).messages[0]["content"]
    assert secret not in guard.judge_output([], text).text
    assert guard.reward_penalty("who?", text) > 0


def test_naming_the_plugin_imports_none_of_its_patterns() -> None:
    script = (
        "import sys, fulmen_raise_pii.plugin as p; p.fulmen_raise_detectors(); "
        "print([m for m in sys.modules if m.startswith('fulmen_raise_pii.') and m != 'fulmen_raise_pii.plugin'])"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
