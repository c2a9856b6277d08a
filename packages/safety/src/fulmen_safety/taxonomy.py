"""The categories of RAISE, and the crosswalk to the schemes that others use. Data: `data/taxonomy.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fulmen_core.errors import UserError
from fulmen_core.suggestions import remedy_for_unknown

#: How many codes each foreign scheme has. A crosswalk with fewer has forgotten one.
SCHEME_SIZES = {"ailuminate": 12, "llama_guard": 14, "openai": 13, "gbt_45654": 31}


@dataclass(frozen=True)
class Taxonomy:
    """Categories and crosswalk.

    Args:
        version: changes whenever a code does.
        crosswalk_version: changes whenever the crosswalk does.
        editions: scheme -> the edition of it that the crosswalk is about.
        titles: category -> language -> title.
        crosswalk: scheme -> its code -> the categories that cover it.
        unmapped: scheme -> categories that it has no place for.
    """

    version: str
    crosswalk_version: str
    editions: Mapping[str, str]
    titles: Mapping[str, Mapping[str, str]]
    crosswalk: Mapping[str, Mapping[str, tuple[str, ...]]]
    unmapped: Mapping[str, tuple[str, ...]]

    def codes(self, scheme: str, category: str) -> tuple[str, ...]:
        """Return the codes under which `scheme` files `category`; none if it is unmapped there.

        Raises:
            UserError: an unknown scheme or category.
        """
        if scheme not in self.crosswalk:
            raise UserError(
                f"unknown scheme {scheme!r}", remedy=remedy_for_unknown(scheme, self.crosswalk, kind="schemes")
            )
        self.check(category, "the crosswalk")
        return tuple(code for code, categories in self.crosswalk[scheme].items() if category in categories)

    def check(self, category: str, where: str) -> None:
        """Raise `UserError` with a did-you-mean unless `category` is one of the taxonomy's."""
        if category not in self.titles:
            remedy = remedy_for_unknown(category, self.titles, kind="categories")
            raise UserError(f"unknown category {category!r}", where=where, remedy=remedy)

    def faults(self) -> list[str]:
        """Return what is incomplete or contradictory in the crosswalk, one sentence each; none in a released
        version."""
        found = []
        for scheme, size in SCHEME_SIZES.items():
            if scheme not in self.editions:
                found.append(f"{scheme} has no edition")
            codes = self.crosswalk.get(scheme, {})
            if len(codes) != size:
                found.append(f"{scheme} has {len(codes)} of {size} codes")
            covered = {category for categories in codes.values() for category in categories}
            declared = set(self.unmapped.get(scheme, ()))
            found += [
                f"{scheme} maps to the unknown category {category}" for category in sorted(covered - set(self.titles))
            ]
            found += [f"{scheme} declares {category} unmapped and maps it" for category in sorted(covered & declared)]
            missing = set(self.titles) - covered - declared
            found += [f"{scheme} neither maps {category} nor declares it unmapped" for category in sorted(missing)]
        return found


@cache
def taxonomy() -> Taxonomy:
    """Return the taxonomy of this version of the package."""
    data = tomllib.loads((resources.files("fulmen_safety") / "data/taxonomy.toml").read_text("utf-8"))
    return Taxonomy(
        version=data["version"],
        crosswalk_version=data["crosswalk_version"],
        editions=data["editions"],
        titles=data["categories"],
        crosswalk={
            scheme: {code: tuple(categories) for code, categories in codes.items()}
            for scheme, codes in data["crosswalk"].items()
        },
        unmapped={scheme: tuple(categories) for scheme, categories in data["unmapped"].items()},
    )
