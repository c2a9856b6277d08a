"""RAISE detector of prompt attacks: jailbreaks, injections and prompt extraction, in English and Chinese.

In: text. Out: findings of the category ``prompt_attack`` with a score. May import: `fulmen_safety` only.
"""
