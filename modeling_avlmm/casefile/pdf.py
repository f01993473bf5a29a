"""Typeset an HTML page as PDF, with PlutoPrint and the fonts that matplotlib brings."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import matplotlib
from matplotlib.font_manager import findSystemFonts, get_font

from dataset_scripts.files import written_whole

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
OWN_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf")
"""Fonts that `templates/paged.html` names; the same on every machine."""
MISSING = "PDF needs PlutoPrint: pip install 'modeling-avlmm[pdf]' (or pip install plutoprint)."
_one_at_a_time = Lock()


class PDFUnavailableError(RuntimeError):
    """PDF cannot be written, as the extra `pdf` is not installed."""


def pdf_available() -> bool:
    """Return whether the extra `pdf` is installed."""
    return find_spec("plutoprint") is not None


def typeset(html: str, path: str | Path, title: str, time: str) -> None:
    """
    Write an HTML page as PDF, A4. Nothing is loaded from outside the page.

    Args:
        html (`str`): The page, with styles and pictures inside.
        path (`str` or `Path`): The destination.
        title (`str`): Title of the document.
        time (`str`): Time of the document, ISO 8601.

    Raises:
        PDFUnavailableError: if `plutoprint` is not installed.
    """
    if not pdf_available():
        raise PDFUnavailableError(MISSING)
    import plutoprint

    class OwnFontsOnly(plutoprint.ResourceFetcher):
        def fetch_url(self, url: str) -> plutoprint.ResourceData:
            name = url.removeprefix("font:")
            if name not in OWN_FONTS:
                raise ValueError(f"A report loads nothing from outside: {url}")
            return plutoprint.ResourceData((FONTS / name).read_bytes(), "font/ttf")

    with _one_at_a_time, written_whole(path) as partial:
        book = plutoprint.Book(plutoprint.PAGE_SIZE_A4, plutoprint.PAGE_MARGINS_NONE)
        book.custom_resource_fetcher = OwnFontsOnly()
        book.set_metadata(plutoprint.PDF_METADATA_TITLE, title)
        book.set_metadata(plutoprint.PDF_METADATA_CREATION_DATE, time)
        book.load_html(drawable(html))
        book.write_to_pdf(partial)


def drawable(text: str) -> str:
    """Return a text with every character that no font here can draw as its number, as in `\\u4e2d`."""
    return re.sub(
        r"[^\x00-\x7f]", lambda match: match[0] if _has_glyph(match[0]) else _number(match[0]), text
    )


def _number(character: str) -> str:
    return character.encode("unicode_escape").decode()


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    if ord(character) in _glyphs(str(FONTS / OWN_FONTS[0])):
        return True
    return any(ord(character) in _glyphs(font) for font in _installed_fonts())


@cache
def _installed_fonts() -> list[str]:
    # macOS has a font with a placeholder for every character.
    return [path for path in findSystemFonts() if "LastResort" not in path]


@cache
def _glyphs(font: str) -> frozenset[int]:
    try:
        return frozenset(get_font(font).get_charmap())
    except (OSError, RuntimeError):  # a font that is gone, or that FreeType cannot read
        return frozenset()
