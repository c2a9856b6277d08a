"""RAISE detector of prompt attacks: jailbreaks, injections, prompt extraction and smuggled payloads, in English and
Chinese.

In: text. Out: findings of the category ``prompt_attack`` with a score. May import: `fulmen_safety` only.
"""
