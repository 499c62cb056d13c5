"""Which part may use which: arrows point one way, and heavy packages wait until they are needed.

Imports are read from the source, inside functions too, so that a lazy import is no way round
an arrow.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mixerkit"

FOUNDATION = {
    "launch": set(), "timer": set(), "errors": {"launch"}, "spec": {"errors"},
    "results": {"errors"}, "download": {"errors"}, "device": {"errors"},
    "compiler": {"errors"}, "other_programs": set(),
}  # fmt: skip
PARTS = {
    "model": set(),
    "data": set(),
    "checkpoint": {"model"},
    "evaluation": {"model", "data", "checkpoint"},
    "training": {"model", "data", "checkpoint", "evaluation"},
    "inference": {"model", "data", "checkpoint", "evaluation"},
    "insight": {"model", "data", "checkpoint"},
    "benchmark": {"model", "checkpoint", "inference"},
}
PARTS |= {"study": set(PARTS), "cli": {*PARTS, "study"}, "__main__": {"cli"}}
PARTS |= {"__init__": set(PARTS), "timm": {"model", "checkpoint"}}
MAY_USE = FOUNDATION | {part: others | set(FOUNDATION) for part, others in PARTS.items()}

HEAVY = {
    "timm", "matplotlib", "onnx", "onnxruntime", "openvino", "huggingface_hub", "datasets",
    "scipy", "sklearn", "torchvision", "pyarrow", "nncf",
}  # fmt: skip
WITHOUT_TORCH = (
    "spec/",
    "errors.py",
    "launch.py",
    "timer.py",
    "other_programs.py",
    "results.py",
    "download/",
    "model/cost.py",
)
WITHOUT_TORCH_AT_IMPORT = (*WITHOUT_TORCH, "__init__.py", "__main__.py", "cli/main.py")


@dataclass(frozen=True)
class Import:
    """`line` of `file` imports `target`; `at_once`: when the module itself is imported."""

    file: str
    line: int
    target: str
    at_once: bool


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import in `source`, as dotted names of modules."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[Import]:
        for target in targets(node):
            yield Import(file, node.lineno, target, at_once)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_once and not lazy and not typing_only)

    yield from walk(ast.parse(source), True)


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide the arrow: write the full name"
        if node.module == "mixerkit":
            return [f"mixerkit.{alias.name}" for alias in node.names]
        return [str(node.module)]
    called = getattr(node, "func", None)
    if "import_module" in (getattr(called, "attr", ""), getattr(called, "id", "")):
        return [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    return []


def wrong_arrows(found: Iterator[Import]) -> list[str]:
    """The imports inside the package that no arrow allows."""
    wrong = []
    for one in found:
        part = one.file.partition("/")[0].removesuffix(".py")
        package, _, rest = one.target.partition(".")
        other = rest.partition(".")[0]
        if package != "mixerkit" or other == part or (part == "__init__" and not other):
            continue
        if other not in MAY_USE[part]:
            wrong.append(f"{one.file}:{one.line} {part} → {other or 'mixerkit'}")
    return wrong


def heavy_at_once(found: Iterator[Import]) -> list[str]:
    return [
        f"{one.file}:{one.line} {one.target}"
        for one in found
        if one.at_once and one.target.partition(".")[0] in HEAVY
    ]


def torch_where_it_must_not_be(found: Iterator[Import]) -> list[str]:
    return [
        f"{one.file}:{one.line} {one.target}"
        for one in found
        if one.target.partition(".")[0] == "torch"
        and (
            one.file.startswith(WITHOUT_TORCH)
            or (one.at_once and one.file.startswith(WITHOUT_TORCH_AT_IMPORT))
        )
    ]


def package_imports() -> Iterator[Import]:
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        yield from imports_of(path.read_text(encoding="utf-8"), file)


def test_every_part_has_its_arrows():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert parts - {"py.typed", "__pycache__", "weights"} <= set(MAY_USE)


def test_arrows_point_one_way():
    assert wrong_arrows(package_imports()) == []


def test_heavy_packages_are_imported_inside_functions_only():
    assert heavy_at_once(package_imports()) == []


def test_specifications_do_not_need_torch():
    assert torch_where_it_must_not_be(package_imports()) == []


@pytest.mark.parametrize(
    "module",
    ["mixerkit", "mixerkit.cli.main", "mixerkit.spec.recipes", "mixerkit.results",
     "mixerkit.model.cost", "mixerkit.spec.paper"],
)  # fmt: skip
def test_importing_does_not_load_torch(module):
    heavy = sorted({"torch", "numpy", *HEAVY})
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


WRONG = {
    "model/a.py": ("from mixerkit.data.loader import Batch", "model → data"),
    "data/b.py": ("def f():\n    import mixerkit.checkpoint.run", "data → checkpoint"),
    "training/c.py": ("from mixerkit import insight", "training → insight"),
    "insight/d.py": ("importlib.import_module('mixerkit.cli.main')", "insight → cli"),
    "errors.py": ("import mixerkit.spec.mixer", "errors → spec"),
    "spec/e.py": ("import mixerkit.results", "spec → results"),
    "checkpoint/f.py": ("from mixerkit import load", "checkpoint → load"),
}


@pytest.mark.parametrize("file", WRONG)
def test_a_wrong_arrow_is_seen(file):
    source, arrow = WRONG[file]
    assert arrow in "".join(wrong_arrows(imports_of(source, file)))


def test_a_heavy_import_is_seen_and_a_lazy_one_is_not():
    source = "import timm.models\nclass A:\n    import scipy\ndef f():\n    import matplotlib\n"
    assert heavy_at_once(imports_of(source, "model/a.py")) == [
        "model/a.py:1 timm.models", "model/a.py:3 scipy",
    ]  # fmt: skip
    lazy = "def f():\n    import torch\n"
    assert torch_where_it_must_not_be(imports_of(lazy, "spec/a.py"))
    assert torch_where_it_must_not_be(imports_of("import torch.nn", "cli/main.py"))
    assert not torch_where_it_must_not_be(imports_of(lazy, "cli/main.py"))
