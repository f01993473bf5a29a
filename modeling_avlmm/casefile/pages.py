"""Write a case as an HTML page or as a PDF."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import jinja2

from dataset_scripts.files import write_whole

from ..explain.words import capital, clock, how_attributed
from ..media_links import is_link
from ..media_sources import name_of
from .case import Case
from .pdf import typeset
from .people import colour_of


def write_html(case: Case, path: str | Path) -> None:
    """Write a case as one HTML file with styles and figures inside; it loads nothing else."""
    write_whole(path, template("case.html").render(case=case, paged=False))


def write_pdf(case: Case, path: str | Path) -> None:
    """
    Write a case as PDF, A4: the same page as [`write_html`], typeset.

    Raises:
        PDFUnavailableError: if `plutoprint`, of the extra `pdf`, is not installed.
    """
    typeset(template("case.html").render(case=case, paged=True), path, f"Case report: {case.name}", case.time)


def template(name: str) -> jinja2.Template:
    """Return a template of `templates`. It escapes every value."""
    loader = jinja2.PackageLoader(__package__, "templates")
    loaded = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    loaded.filters |= {
        "clock": clock,
        "how_attributed": how_attributed,
        "capital": capital,
        "person_colour": colour_of,
    }
    return loaded.get_template(name)


def case_stem(file: str) -> str:
    """Return the file name of a case without its suffix: the name of the file, and a hash of its place, as names repeat."""
    where = file if is_link(file) else os.path.abspath(file)
    name = re.sub(r"[^\w.-]+", "_", Path(name_of(file)).name)[:80] or "file"
    return f"{name}-{hashlib.sha256(where.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


__all__ = ["case_stem", "template", "write_html", "write_pdf"]
