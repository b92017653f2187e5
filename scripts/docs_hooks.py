"""Hooks of MkDocs: Markdown files from outside docs/ become pages of the site.

Their links, and links to them, are rewritten from places in the repository to places in the site.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "pconv_model/weights/README.md": "weights.md",
}
LINK = re.compile(r"(\]\()([^)#:\s]+)")


def on_files(files, config):
    """Add the pages from outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn relative links of the repository into links of the site."""
    inside = {page: source for source, page in OUTSIDE.items()}
    source = inside.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        place = OUTSIDE.get(target) or target.removeprefix("docs/")
        return match[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(rewritten, markdown)
