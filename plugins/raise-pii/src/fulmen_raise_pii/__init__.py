"""RAISE detector of personal data in English and Chinese, with check digits."""
