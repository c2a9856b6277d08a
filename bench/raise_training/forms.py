"""A request in another form: who asks how to do a thing can ask for it in many ways, and none makes it more or less
harmful. Sets of harmful requests are full of orders, and harmless ones of questions; a model that has not seen both in
both forms takes the form for the harm.
"""

from __future__ import annotations

import re

import numpy as np

_KIND = "(?:(?:best|easiest|simplest|quickest|fastest|safest|cheapest|good|easy|most effective|effective|common) )*"
_GUIDE = "(?:guide|tutorial|manual|instructions|instruction manual|article|plan|steps|walkthrough|explanation)"

#: What may stand before the thing to do, in place of which another form may stand.
_ASKS = (
    "how (?:do|can|could|should|would|might) (?:i|we|you|one|someone|somebody|people)",
    "(?:please )?(?:teach|tell|show|instruct) (?:me|us) (?:how )?to",
    "(?:please )?(?:explain|describe|demonstrate)(?: to me)?(?: in detail)? how (?:to|i can|one can|someone can)",
    f"(?:what is|what's|whats|what are) (?:the |some |a )?{_KIND}(?:way|ways|method|methods|steps|trick) to",
    "(?:please )?(?:give|provide|write|create|develop|draft|offer)(?: me)? (?:a |an |some |the )?"
    f"(?:detailed |step-by-step |step by step |comprehensive |complete )*{_GUIDE}"
    "(?: (?:on|for|explaining|describing|detailing|that explains))?(?: how)? to",
    "i (?:want|need|would like|'d like) to(?: (?:know|learn) how to)?",
    "help me(?: to)?",
    "can you (?:explain|tell me|show me|teach me|help me)(?: how)?(?: to)?",
    "(?:is there|what's|what is) (?:a|an|any) (?:easy |simple |good )?way to",
    "how to",
)
_ASKED = re.compile(f"(?:{'|'.join(_ASKS)}) (?P<thing>[a-z][^.?!;:\\n]*?)[.?!]*", re.IGNORECASE)

_FORMS = (
    "How do I {}?", "How can I {}?", "how to {}", "how would someone {}", "What is the best way to {}?",
    "What are some effective ways to {}?", "What steps should I take to {}?", "What's the easiest way to {}?",
    "What are the most common methods people use to {}?", "What do I need to {}?", "Explain how to {}.",
    "Write a step-by-step guide on how to {}", "Give me detailed instructions to {}.",
    "Write an article about how to {}", "I want to {}. How should I go about it?", "I need to {}. What do I do?",
    "i wanna {}, any tips?",
    "Help me {}.", "Can you explain how to {}?", "Is there a simple way to {}?", "Teach me to {}.",
    "List several ways to {}.", "Describe in detail how to {}.", "A friend of mine wants to {}. What should he do?",
    "Develop a plan to {}", "What is the trick if you want to {}?",
)  # fmt: skip


def reformed(text: str, random: np.random.Generator) -> str:
    """Return the request in another form; the text itself if it does not ask how to do a thing in one sentence."""
    match = _ASKED.fullmatch(text.strip())
    if match is None or len(match["thing"].split()) > 30:
        return text
    return _FORMS[int(random.integers(len(_FORMS)))].format(match["thing"])
