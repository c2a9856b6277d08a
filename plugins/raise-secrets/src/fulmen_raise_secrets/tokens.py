"""Keys and tokens that services give out in a form of their own: a prefix, a length, an alphabet, sometimes check
digits."""

from __future__ import annotations

from collections.abc import Callable

from fulmen_raise_secrets.evidence import github_check, is_placeholder, jwt_header
from fulmen_safety.pattern import NOTHING, Node, Pattern, chars, either, literal, repeat, seq

_ALNUM, _HEX, _DIGIT, _URL_SAFE = chars("0-9A-Za-z"), chars("0-9a-f"), chars("0-9"), chars("0-9A-Za-z_-")
_UPPER = chars("0-9A-Z")
_WORD_BEFORE = chars("0-9A-Za-z_-")


def _some(node: Node, low: int, high: int = 0) -> Node:
    return repeat(node, low, high or low)


def _of(*words: str) -> Node:
    return either(*map(literal, words))


#: (kind, what starts it, what follows). Sources: the services' own documentation of their formats.
_FORMS: tuple[tuple[str, tuple[str, ...], Node], ...] = (
    # clouds
    ("aws_access_key", ("AKIA", "ASIA"), _some(chars("2-7A-Z"), 16)),
    ("google_api_key", ("AIza",), _some(_URL_SAFE, 35)),
    ("google_oauth", ("ya29.",), _some(_URL_SAFE, 20, 400)),
    ("google_oauth_secret", ("GOCSPX-",), _some(_URL_SAFE, 28)),
    ("alibaba_access_key", ("LTAI",), _some(_ALNUM, 12, 24)),
    ("tencent_secret_id", ("AKID",), _some(_ALNUM, 32)),
    ("digitalocean_token", ("dop_v1_", "doo_v1_", "dor_v1_"), _some(_HEX, 64)),
    ("azure_ad_secret", ("8Q~",), _some(chars("0-9A-Za-z~._-"), 31, 34)),
    ("databricks_token", ("dapi",), _some(_HEX, 32)),
    ("vault_token", ("hvs.", "hvb."), _some(_URL_SAFE, 24, 200)),
    ("terraform_token", ("atlasv1.",), _some(_URL_SAFE, 60, 70)),
    ("pulumi_token", ("pul-",), _some(_HEX, 40)),
    ("fly_token", ("fo1_",), _some(_URL_SAFE, 43)),
    # version control, packages
    ("gitlab_token", ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"), _some(_URL_SAFE, 20, 64)),
    ("npm_token", ("npm_",), _some(_ALNUM, 36)),
    ("pypi_token", ("pypi-AgE",), _some(_URL_SAFE, 50, 300)),
    ("rubygems_token", ("rubygems_",), _some(_HEX, 48)),
    ("docker_token", ("dckr_pat_",), _some(_URL_SAFE, 27)),
    ("atlassian_token", ("ATATT3xFf", "ATCTT3xFf", "ATBB"), _some(chars("0-9A-Za-z_=-"), 24, 250)),
    # language models
    ("anthropic_key", ("sk-ant-",), _some(_URL_SAFE, 32, 140)),
    ("openai_key", ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"), _some(_URL_SAFE, 32, 200)),
    ("openrouter_key", ("sk-or-v1-",), _some(_HEX, 64)),
    ("llm_key", ("sk-",), _some(_ALNUM, 32, 64)),
    ("huggingface_token", ("hf_",), _some(chars("A-Za-z"), 34)),
    ("groq_key", ("gsk_",), _some(_ALNUM, 52)),
    ("xai_key", ("xai-",), _some(_ALNUM, 80)),
    ("replicate_token", ("r8_",), _some(_ALNUM, 37)),
    ("perplexity_key", ("pplx-",), _some(_ALNUM, 40, 60)),
    ("nvidia_key", ("nvapi-",), _some(_URL_SAFE, 60, 70)),
    ("langsmith_key", ("lsv2_pt_", "lsv2_sk_"), seq(_some(_HEX, 32), literal("_"), _some(_HEX, 10))),
    # chat, payment, mail, monitoring
    ("slack_token", ("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-"), _some(chars("0-9A-Za-z-"), 20, 250)),
    ("slack_app_token", ("xapp-",), _some(chars("0-9A-Za-z-"), 40, 250)),
    ("stripe_key", ("sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"), _some(_ALNUM, 24, 247)),
    ("square_token", ("sq0atp-", "sq0csp-", "EAAA"), _some(_URL_SAFE, 22, 64)),
    ("shopify_token", ("shpat_", "shpca_", "shppa_", "shpss_"), _some(chars("0-9a-fA-F"), 32)),
    ("sendgrid_key", ("SG.",), seq(_some(_URL_SAFE, 22), literal("."), _some(_URL_SAFE, 43))),
    ("mailgun_key", ("key-",), _some(_HEX, 32)),
    ("mailchimp_key", (), seq(_some(_HEX, 32), literal("-us"), _some(_DIGIT, 1, 2))),
    ("twilio_key", ("SK",), _some(_HEX, 32)),
    ("telegram_token", (), seq(_some(_DIGIT, 8, 10), literal(":AA"), _some(_URL_SAFE, 33))),
    ("discord_token", (), seq(chars("MNO"), _some(_URL_SAFE, 23, 27), literal("."), _some(_URL_SAFE, 6), literal("."),
                              _some(_URL_SAFE, 27, 40))),
    ("grafana_token", ("glsa_",), seq(_some(_ALNUM, 32), literal("_"), _some(_HEX, 8))),
    ("newrelic_key", ("NRAK-",), _some(_UPPER, 27)),
    ("sentry_token", ("sntrys_", "sntryu_"), _some(chars("0-9A-Za-z+/=_-"), 40, 250)),
    ("postman_key", ("PMAK-",), seq(_some(_HEX, 24), literal("-"), _some(_HEX, 34))),
    ("linear_key", ("lin_api_",), _some(_ALNUM, 40)),
    ("notion_token", ("ntn_", "secret_"), _some(_ALNUM, 43, 50)),
    ("figma_token", ("figd_",), _some(_URL_SAFE, 40)),
    ("airtable_token", ("pat",), seq(_some(_ALNUM, 14), literal("."), _some(_HEX, 64))),
    ("age_key", ("AGE-SECRET-KEY-1",), _some(_UPPER, 58)),
)  # fmt: skip

#: Where a form without a prefix is looked for: a literal in it.
_ANCHORS = {"mailchimp_key": "-us[0-9]", "telegram_token": ":AA", "discord_token": r"[MNO][0-9A-Za-z_-]{23}"}


def tokens() -> list[Pattern]:
    """One pattern for each form, GitHub's with its check digits, and JSON Web Tokens."""
    made = [_pattern(kind, prefixes, rest) for kind, prefixes, rest in _FORMS]
    return [*made, _github(), _github_fine_grained(), _slack_webhook(), _jwt()]


def _pattern(kind: str, prefixes: tuple[str, ...], rest: Node, accept: Callable[[str], float] | None = None) -> Pattern:
    body = seq(_of(*prefixes), rest) if prefixes else rest
    anchor = "|".join(prefix.replace(".", r"\.") for prefix in prefixes) or _ANCHORS[kind]
    return Pattern(
        kind, body, anchor, not_before=(_WORD_BEFORE,), not_after=chars("0-9A-Za-z_"), accept=accept or _no_placeholder
    )


def _no_placeholder(found: str) -> float:
    return 0.0 if is_placeholder(found) else 0.95


def _github() -> Pattern:
    """Personal, OAuth, user, server and refresh tokens: a wrong check still is most likely one, wrongly copied."""

    def accept(found: str) -> float:
        return 1.0 if github_check(found) else _no_placeholder(found) and 0.7

    return _pattern("github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _some(_ALNUM, 36), accept)


def _github_fine_grained() -> Pattern:
    return _pattern("github_token", ("github_pat_",), seq(_some(_ALNUM, 22), literal("_"), _some(_ALNUM, 59)))


def _slack_webhook() -> Pattern:
    rest = seq(repeat(seq(_UPPER, repeat(_UPPER, 7, 11), literal("/")), 2, 2), _some(_ALNUM, 24))
    return Pattern(
        "slack_webhook", seq(literal("hooks.slack.com/services/"), rest), "hooks.slack.com", not_after=_ALNUM
    )


def _jwt() -> Pattern:
    part = _some(_URL_SAFE, 10, 1200)
    body = seq(literal("eyJ"), part, literal(".eyJ"), part, literal("."), _some(_URL_SAFE, 16, 700))
    return Pattern(
        "jwt",
        body,
        "eyJ",
        not_before=(_WORD_BEFORE,),
        not_after=NOTHING,
        accept=lambda found: 0.9 if jwt_header(found) else 0.0,
    )
