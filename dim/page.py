"""A report as one page of HTML that needs nothing beside it."""

import base64
import re
from html import escape
from pathlib import Path

from dim.checkpoint import write_text

# Readable on a phone as on paper; tables that are too wide scroll.
STYLE = """
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .75rem; white-space: nowrap; }
img { max-width: 100%; margin: 1rem 0; }
"""


def page(markdown: str, folder: Path) -> str:
    """Markdown as HTML, with the PNG files that it shows inside.

    Args:
        markdown: Whose first heading is the title.
        folder: Where its images are.

    Raises:
        FileNotFoundError: If an image is not there.
    """
    from markdown_it import MarkdownIt

    def embedded(match: re.Match[str]) -> str:
        image = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{image}"'

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'src="([^":]+\.png)"', embedded, body)
    title = next((line[2:] for line in markdown.splitlines() if line.startswith("# ")), "Report")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )


def write_page(report: Path) -> None:
    """Write a Markdown file as a page beside it: ``report.html`` of ``report.md``.

    Raises:
        FileNotFoundError: If the file or an image in it is not there.
        RunError: If the system refuses to write.
    """
    text = page(report.read_text(encoding="utf-8"), report.parent)
    write_text(report.with_suffix(".html"), text)
