"""HTML comments, such as the markers of quoted numbers, are left out of what is built.

They would be invisible, but CommonMark takes a line that begins with one for HTML as a whole.
"""

import re

from sphinx.application import Sphinx

CODE_OR_COMMENT = re.compile(r"(^ *```.*?^ *```)|<!--.*?-->", re.DOTALL | re.MULTILINE)


def without_comments(page: str) -> str:
    """The page without its comments; code keeps them."""
    return CODE_OR_COMMENT.sub(lambda found: found[1] or "", page)


def clean(_app: Sphinx, _name: str, source: list[str]) -> None:
    """What Sphinx reads of a page."""
    source[0] = without_comments(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", clean)
    return {"parallel_read_safe": True}
