"""Pages of one make: their templates, their style, and the signs of verdicts and grades."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
BADGES = {
    "supported": "✓", "refuted": "✕", "equivalent": "≈", "undecided": "?", "no evidence": "?", "not identifiable": "=",
    "robust": "●", "conditional": "◐", "contested": "⇄", "ungraded": "○",
}  # fmt: skip


def page_text(template: str, *, folder: Path = TEMPLATES, **values: Any) -> str:
    """A page, of a template in `folder` that extends `base.html`; a value that it names and that is missing raises."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, badges=BADGES, **values)
