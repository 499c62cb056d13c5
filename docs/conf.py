"""The site: these pages, and the reference that is made from the code. `make docs` builds it.

Nothing is fetched, so that it builds offline. What the pages need beyond Sphinx is in
`extensions/`, one idea in each file.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

from mixerkit import __version__  # noqa: E402

project = html_title = "mixerkit"
author = "the authors of mixerkit"
copyright = f"{author}. Apache-2.0"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "command_help",
    "docstrings",
    "japanese",  # before the markers, which it has
    "markers",
    "repository_files",
]
exclude_patterns = ["extensions"]
nitpicky = True
nitpick_ignore_regex = [
    # libraries whose pages are elsewhere, and types of ours that are not public
    (r"py:.*", r"(torch|numpy|pathlib|collections|typing|mixerkit\.\w+)\..*"),
    (r"py:.*", r"Path|Tensor|Module|Classifier|Image\.Image"),
]

myst_heading_anchors = 3
highlight_language = "none"  # blocks without a language are trees of files and formulas
smartquotes = False  # in sentences, too, --help is no dash
default_role = "code"  # docstrings write `names` as Markdown does
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"

html_theme = "furo"
pygments_dark_style = "github-dark"  # the theme's own underlines names as if they were links
html_static_path = ["static"]
html_css_files = ["mixerkit.css"]
html_copy_source = False
html_show_sphinx = False
