"""RAISE detector of keys, tokens, passwords and other secrets.

In: text. Out: findings of the category ``ip_secrets``, by kind. May import: `fulmen_safety` only.
"""
