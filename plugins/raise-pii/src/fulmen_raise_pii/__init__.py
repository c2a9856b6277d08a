"""RAISE detector of personal data in English and Chinese, with check digits.

In: text. Out: findings of the category ``privacy_pii``, by kind. May import: `fulmen_safety` only.
"""
