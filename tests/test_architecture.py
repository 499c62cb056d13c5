"""docs/architecture.md lists the package as it is."""

import re
from pathlib import Path

from tests.test_imports import FOUNDATION, PARTS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def listed() -> set[str]:
    """Paths of the modules in the tree of the page: folders stand 6 spaces in, files deeper."""
    tree = PAGE.split("    mixerkit/\n")[1].split("\n\n")[0]
    folder, found = "", set()
    for line in tree.splitlines():
        if name := re.match(r" {6}(\w+/)", line):
            folder = name[1]
        elif line.startswith(" " * 8):
            found |= {folder + file for file in re.findall(r"(?:^ +|  )(\w+\.py)", line)}
        else:
            found |= set(re.findall(r"^ {6}(\w+\.py)", line))
    return found


def test_the_tree_on_the_page_is_the_tree_on_disk():
    package = ROOT / "mixerkit"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert listed() == {
        name for name in modules if not name.endswith(("__init__.py", "__main__.py"))
    }


def test_the_arrows_on_the_page_are_the_tested_ones():
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", PAGE.split("## Arrows")[1].split("##")[0], re.M)
    stated = {}
    for parts, others in rows:
        for part in re.findall(r"`(\w+)`", parts):
            stated[part] = set(re.findall(r"`(\w+)`", others))
    below_study = set(FOUNDATION) | set(stated) - {"study", "cli", "timm"}
    stated |= {"study": below_study - set(FOUNDATION)}
    stated |= {"cli": below_study - set(FOUNDATION) | {"study"}}
    assert stated == {part: PARTS[part] for part in stated}
    assert set(stated) == set(PARTS) - {"__init__", "__main__"}
