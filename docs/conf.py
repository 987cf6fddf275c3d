"""The pages as a site: `make docs` (Sphinx reads this).

Pages stay where they are in the repository, and read there as well as here: each has the same place
in the site, so that what it links to is where it says. A page is in the site when it is in `ORDER`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bridge import __version__  # noqa: E402

ORDER: Final = {
    "Start": ["README", "README.zh-CN"],
    "Receivers": ["docs/receivers", "docs/receivers.zh-CN", "MIGRATING"],
    "In production": [
        "deploy/README",
        "docs/commands",
        "docs/observability",
        "docs/metrics",
        "docs/high-availability",
        "SECURITY",
        "docs/threat-model",
    ],
    "How it is made": [
        "ARCHITECTURE",
        "docs/stream-contract",
        "tests/chaos/README",
        "tests/chaos/results/soak",
        "tests/benchmarks/RESULTS",
    ],
    "The project": ["CHANGELOG", "CONTRIBUTING"],
}
"""All pages, in the order in which people should read them."""
TITLES: Final = {"README": "English", "README.zh-CN": "简体中文"}

project = "nb-command-bridge"
version = release = __version__
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = [f"{page}.md" for pages in ORDER.values() for page in pages]
exclude_patterns = [".*", "build", "dist"]  # not even looked through

myst_heading_anchors = 6  # links to headings, as code hosts make them
myst_enable_extensions = ["tasklist"]

html_theme = "furo"  # loads nothing from elsewhere
html_title = f"{project} {release}"
html_favicon = "../bridge/console/assets/icon.svg"
html_static_path = ["site"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def order_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts all pages below the first, which needs no list of them where it is read."""
    if docname == root_doc:
        for caption, pages in ORDER.items():
            lines = [f"{TITLES[page]} <{page}>" if page in TITLES else page for page in pages]
            entries = "\n".join(lines).replace(f"<{root_doc}>", "<self>")
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def unlink_folders(app: Sphinx, page: nodes.document) -> None:
    """Links to folders, which a site cannot show, become their text."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for link in list(page.findall(addnodes.pending_xref)):
        if (here / link["reftarget"]).is_dir():
            link.replace_self(link.children)


def finish(app: Sphinx, error: Exception | None) -> None:
    """Adds what HTML within a page shows, and the address that a site is asked for."""
    if error is None:
        images = Path("docs", "images")
        shutil.copytree(ROOT / images, app.outdir / images, dirs_exist_ok=True)
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", order_pages)
    app.connect("doctree-read", unlink_folders)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}
