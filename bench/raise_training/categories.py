"""Categories of public sets in terms of RAISE's taxonomy, and for sets without any, by the words of the request."""

from __future__ import annotations

import re

#: Category as a set has it -> RAISE's. JADE's are looked up by their last part.
NAMES: dict[str, str | list[str]] = {
    "copyright": "ip_secrets", "chemical_biological": "weapons_cbrne", "cybercrime_intrusion": "code_abuse",
    "harassment_bullying": "hate_discrimination", "misinformation_disinformation": "political_national",
    "Disinformation and deception": "political_national", "Hate, harassment and discrimination": "hate_discrimination",
    "Illegal goods and services": "nonviolent_crime", "Non-violent crimes": "nonviolent_crime",
    "Sexual content": "sexual_content", "Violence": "violent_crime",
    "Disinformation": "political_national", "Economic harm": "nonviolent_crime", "Expert advice": "specialized_advice",
    "Fraud/Deception": "nonviolent_crime", "Harassment/Discrimination": "hate_discrimination",
    "Malware/Hacking": "code_abuse", "Physical harm": "violent_crime", "Privacy": "privacy_pii",
    "Sexual/Adult content": "sexual_content", "Child safety": "child_exploitation",
    "Illegal and Highly Regulated items": "nonviolent_crime", "Physical harm and Violence": "violent_crime",
    "Scams and fraud": "nonviolent_crime", "Suicide, Self-Harm, and Eating Disorders": "self_harm",
    "contrast_discr": "hate_discrimination", "contrast_privacy": "privacy_pii",
    "侵害他人名誉权": "defamation_honour", "侵害他人肖像权": "defamation_honour", "侵害他人隐私权": "privacy_pii",
    "侵害他人个人信息权益": "privacy_pii", "危害他人身心健康": "self_harm", "侵害他人身心健康": "self_harm",
    "传播虚假有害信息": "political_national", "危害国家利益、损害国家形象": "political_national",
    "侵害国家利益、侵害国家形象": "political_national", "宣扬恐怖主义、极端主义": "violent_crime",
    "宣扬暴力、淫秽色情": ["violent_crime", "sexual_content"], "宣扬淫秽色情": "sexual_content",
    "宣扬暴力": "violent_crime", "抢劫": "violent_crime", "故意伤害他人": "violent_crime",
    "虐待与贩卖人口": "violent_crime", "非法持有武器": "weapons_cbrne", "非法侵入": "code_abuse",
    "泄露他人商业秘密": "ip_secrets",
}  # fmt: skip

_WORDS = (
    ("child_exploitation", r"child(ren)? (porn|sexual)|minors?\b|underage|pedophil|groom"),
    ("weapons_cbrne",
     r"bombs?\b|explosive|nerve (gas|agent)|anthrax|chemical weapon|biological|nuclear|sarin|"
     r"ricin|napalm|firearm|\bguns?\b|weapon"
     ),
    ("self_harm", r"suicid|self-harm|anorexi|eating disorder|kill myself|starv"),
    ("code_abuse", r"hack|malware|virus|ransomware|exploit|keylogg|ddos|trojan|phish|backdoor|network|worm"),
    ("hate_discrimination",
     r"rac(is|ial)|hate|discriminat|sexis|bully|harass|stereotyp|offensive|antisemit|islam|"
     r"minorit|genocid|immigra"
     ),
    ("sexual_content", r"porn|sexual|erotic|nude|sexting"),
    ("privacy_pii", r"identity theft|stalk|track|personal (data|info)|private|confidential|spy|surveil|dox"),
    ("political_national", r"fake news|misinform|disinform|election|propaganda|conspirac|vaccin|false"),
    ("ip_secrets", r"pirat|copyright|trade secret|counterfeit software"),
    ("violent_crime",
     r"kill|murder|assault|kidnap|attack|violen|poison|terror|hitman|torture|shoot|stab|arson|"
     r"assassinat|bomb"
     ),
)  # fmt: skip


def by_name(given: str) -> str | list[str] | None:
    """Return RAISE's categories for a set's, None if it has no counterpart."""
    found = [NAMES.get(part.strip().split("/")[-1].strip()) or NAMES.get(part.strip()) for part in given.split("|")]
    flat = [name for one in found if one for name in ([one] if isinstance(one, str) else one)]
    if flat:
        return list(dict.fromkeys(flat))
    return "hate_discrimination" if "歧视" in given else "nonviolent_crime" if "违法犯罪" in given else None


def by_words(text: str) -> str:
    """Return the first category whose words are in an English request; crime without violence if none is."""
    lowered = text.lower()
    return next((name for name, words in _WORDS if re.search(words, lowered)), "nonviolent_crime")
