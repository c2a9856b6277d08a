from __future__ import annotations

import base64
import json
import random
import string
import uuid
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_raise_secrets.detector import SecretsDetector, make
from fulmen_raise_secrets.tokens import tokens
from fulmen_safety import UserError
from fulmen_safety.conformance import faults
from fulmen_safety.detector import StreamingDetector

RNG = random.Random(7)
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def drawn(alphabet: str, count: int) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(count))


def github(prefix: str) -> str:
    body = drawn(BASE62, 30)
    number, check = crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = BASE62[digit] + check
    return f"{prefix}_{body}{check}"


def jwt() -> str:
    parts = [
        json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": drawn(BASE62, 8), "iat": 1})
    ]
    head, body = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    return f"{head}.{body}.{drawn(BASE62 + '-_', 43)}"


def pem() -> str:
    lines = "\n".join(drawn(BASE62 + "+/", 64) for _ in range(12))
    return f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"


HEX, ALNUM = "0123456789abcdef", BASE62
SAMPLES = {
    "aws_access_key": "AKIA" + drawn("234567" + string.ascii_uppercase, 16),
    "google_api_key": "AIza" + drawn(ALNUM + "-_", 35),
    "gitlab_token": "glpat-" + drawn(ALNUM, 20),
    "github_token": github("ghp"),
    "npm_token": "npm_" + drawn(ALNUM, 36),
    "anthropic_key": "sk-ant-" + "api03-" + drawn(ALNUM + "-_", 93) + "AA",
    "openai_key": "sk-proj-" + drawn(ALNUM, 74),
    "llm_key": "sk-" + drawn(ALNUM, 48),
    "huggingface_token": "hf_" + drawn(string.ascii_letters, 34),
    "slack_token": "xoxb-" + drawn(string.digits, 12) + "-" + drawn(string.digits, 12) + "-" + drawn(ALNUM, 24),
    "stripe_key": "sk_live_" + drawn(ALNUM, 24),
    "sendgrid_key": "SG." + drawn(ALNUM, 22) + "." + drawn(ALNUM, 43),
    "telegram_token": drawn("123456789", 9) + ":AA" + drawn(ALNUM, 33),
    "alibaba_access_key": "LTAI" + drawn(ALNUM, 20),
    "jwt": jwt(),
    "private_key": pem(),
}


@pytest.fixture(scope="module")
def detector() -> SecretsDetector:
    return make({})


def found(detector: SecretsDetector, text: str) -> set[tuple[str, str]]:
    return {(one.label, text[one.start : one.end]) for one in detector.scan(text) if one.score >= 0.5}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("frame", ["{}", "see {}.", "密钥{}谢谢", "（{}）", "TOKEN = '{}'\n", "?key={}&a=1", "`{}`"])
def test_each_form_is_found_wherever_it_stands(detector: SecretsDetector, kind: str, frame: str) -> None:
    assert (kind, SAMPLES[kind]) in found(detector, frame.format(SAMPLES[kind]))


@pytest.mark.parametrize("pattern", tokens(), ids=lambda pattern: pattern.label)
def test_every_form_is_searched_for_where_it_can_be(pattern: Any) -> None:
    import re

    text = " ".join(SAMPLES.values())
    for match in pattern.expression.finditer(text):
        assert re.search(pattern.anchor, match[0])


@pytest.mark.parametrize(
    ("text", "kind", "secret"),
    [
        ("postgres://app:Tr0ub4dor3@db.internal/main", "url_password", "Tr0ub4dor3@"),
        ("Server=db;User Id=sa;Password=Qx7!pLm2;Timeout=3", "connection_password", "Qx7!pLm2"),
        ("api_key = 'Zx8vQ2mN4bT7yR1kW5pL'", "assigned_secret", "Zx8vQ2mN4bT7yR1kW5pL"),
        ('"clientSecret": "a8Fj3kLq9ZpX2vBn7Wt5"', "assigned_secret", "a8Fj3kLq9ZpX2vBn7Wt5"),
        ("GITHUB_TOKEN=q9Zx8vQ2mN4bT7yR1kW5", "assigned_secret", "q9Zx8vQ2mN4bT7yR1kW5"),
        ('password: "hunter2plus"', "assigned_password", "hunter2plus"),
        ("我的密码是Wq7s9k2Lm，别告诉别人", "assigned_password", "Wq7s9k2Lm"),
        ("Authorization: Bearer q9Zx8vQ2mN4bT7yR1kW5", "authorization", "q9Zx8vQ2mN4bT7yR1kW5"),
    ],
)
def test_surroundings_give_a_secret_away(detector: SecretsDetector, text: str, kind: str, secret: str) -> None:
    assert (kind, secret) in found(detector, text)


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        f"request {uuid.UUID(int=RNG.getrandbits(128))}",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "data:image/png;base64," + base64.b64encode(RNG.randbytes(600)).decode(),
        "api_key = os.environ['API_KEY']",
        "api_key=YOUR_API_KEY_HERE, token: <your-token>, secret = ${SECRET}",
        "password = getpass.getpass()",
        'password: \'password\', "password": "changeme123"',
        "key = some_function_name(argument)",
        "tokenizer = AutoTokenizer.from_pretrained(name_or_path)",
        "postgres://user:password@localhost/db",
        "the secret: nobody knows internationalization",
        "sort(key=lambda item: item.value)",
        "sk-learn, hf_transfer, npm_config_registry, key-value",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "eyJhbGciOi is how a JWT starts",
    ],
)
def test_what_only_looks_like_one_is_let_pass(detector: SecretsDetector, text: str) -> None:
    assert found(detector, text) == set()


def test_a_github_token_with_right_check_digits_is_certain_and_one_without_is_not(detector: SecretsDetector) -> None:
    token = github("gho")
    assert {one.score for one in detector.scan(token)} == {1.0}
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert {one.score for one in detector.scan(wrong)} == {0.7}


FRAGMENTS = st.one_of(
    st.sampled_from([sample for kind, sample in SAMPLES.items() if kind != "private_key"]),
    st.sampled_from(["AKIA", "ghp_", "sk-", "eyJ", ".eyJ", " = ", "'", '"', "password", ":", "密码", "是", "a9B"]),
    st.sampled_from(
        ["://u:", "pw1", "@h", ";Pwd=", " ", "\n", "-----BEGIN PRIVATE KEY-----", "Authorization: Bearer "]
    ),
)

DETECTOR = make({})


@settings(max_examples=40, deadline=None)
@given(st.lists(FRAGMENTS, max_size=5).map("".join))
def test_streaming_is_exact(text: str) -> None:
    assert faults(DETECTOR, text[:400], categories=["ip_secrets"]) == []


def test_the_detector_streams_and_holds_prose_word_by_word(detector: SecretsDetector) -> None:
    assert isinstance(detector, StreamingDetector)
    for text in ("The quick brown ", "今天天气", "In 2023, 47 people "):
        assert detector.hold_from(text) == len(text)
    assert detector.hold_from("here: ghp_abc") == len("here: ")


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAGMENTS, max_size=5).map("".join), st.integers(0, 400))
def test_asking_for_all_short_forms_at_once_holds_what_asking_one_by_one_holds(text: str, cut: int) -> None:
    beginning = text[:cut]
    assert DETECTOR.hold_from(beginning) == min(pattern.hold_from(beginning) for pattern in DETECTOR.patterns)


def test_only_the_kinds_that_are_named_are_looked_for_and_listed_values_pass() -> None:
    text = f"{SAMPLES['github_token']} {SAMPLES['stripe_key']}"
    assert {kind for kind, _ in found(make({"kinds": ["stripe_key"]}), text)} == {"stripe_key"}
    assert {kind for kind, _ in found(make({"allow": [SAMPLES["stripe_key"]]}), text)} == {"github_token"}


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'stripe_key'"):
        make({"kinds": ["stripe_keys"]})
