"""Figures inside the page: SVG that names itself to a screen reader and shares no id with its neighbours."""

from __future__ import annotations

import html
import re


def inline_svg(svg: bytes, *, name: str, description: str) -> str:
    """An SVG file as an element of an HTML page.

    Every id and every reference to one gets the figure's name in front; the XML prologue, the metadata
    and the fixed size go, so that the page's style decides the width.
    """
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A style sheet inside an inline SVG would hold for the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'href="#{name}-\2"', text)
    text = text.replace("url(#", f"url(#{name}-").replace("xlink:href=", "href=")
    viewbox = re.search(r'viewBox="([^"]+)"', text)
    label = html.escape(description, quote=True)
    opening = f'<svg class="chart" role="img" aria-label="{label}" viewBox="{viewbox.group(1) if viewbox else ""}">'
    text = re.sub(r"^<svg[^>]*>", lambda _: opening, text, count=1)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.strip()
