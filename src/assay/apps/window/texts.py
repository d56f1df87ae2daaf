"""What pages say, in each language; `texts/LANGUAGE/PAGE.json` holds a page's part of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final, Literal, TypeAlias, get_args

Language: TypeAlias = Literal["en", "fr", "ar"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
NAMES: Final[Mapping[Language, str]] = {"en": "English", "fr": "Français", "ar": "العربية"}
"""Each in itself."""
RIGHT_TO_LEFT: Final = frozenset[Language]({"ar"})
_MOST_PREFERENCES: Final = 16


@cache
def texts_of(language: Language) -> Mapping[str, str]:
    """All texts of a language, by `PAGE.KEY`; {name} stands for a value."""
    found: dict[str, str] = {}
    for item in (files("assay.apps.window") / "texts" / language).iterdir():
        if item.name.endswith(".json"):
            page = item.name.removesuffix(".json")
            found |= {f"{page}.{key}": text for key, text in json.loads(item.read_text(encoding="utf-8")).items()}
    return found


def said(language: Language, key: str, **values: object) -> str:
    """One text with its values.

    Raises:
        KeyError: there is no such text, or a value is missing.
    """
    return texts_of(language)[key].format(**values)


def preferred(asked: str, cookie: str, header: str) -> Language:
    """The language of a reader: of the address, else of the cookie, else the first that the browser names
    (`Accept-Language`), else English."""
    wishes = [asked, cookie, *(each.partition(";")[0] for each in header.split(",")[:_MOST_PREFERENCES])]
    for wish in wishes:
        primary = wish.strip().lower().partition("-")[0]
        for language in LANGUAGES:
            if primary == language:
                return language
    return "en"
