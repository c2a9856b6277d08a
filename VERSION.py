"""The one version that every Fulmen distribution carries."""

__version__ = "0.1.0"
