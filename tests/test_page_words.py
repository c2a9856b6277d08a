"""The page's words for what others define: serving does not know the taxonomy, and must name what it finds."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files

import pytest


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_names_every_category_as_the_taxonomy_does(language: str) -> None:
    taxonomy = tomllib.loads((files("fulmen_safety") / "data/taxonomy.toml").read_text(encoding="utf-8"))
    words = json.loads((files("fulmen_serving") / f"page/text/{language}.json").read_text(encoding="utf-8"))
    named = {key.removeprefix("category."): text for key, text in words.items() if key.startswith("category.")}
    assert {code: text.lower() for code, text in named.items()} == {
        code: names[language].lower() for code, names in taxonomy["categories"].items()
    }
