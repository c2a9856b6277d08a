"""Keys, limits and usage of a server that several organisations share: in, a secret; out, whose request it is.

Imports SQLAlchemy (``fulmen-serving[platform]``) and, of this package, `refusal`; nothing here knows HTTP.
"""
