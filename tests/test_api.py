"""The public interface: what `__all__` lists is there, and type checkers see the same names."""

import ast
from pathlib import Path

import mixerkit


def test_every_public_name_is_there() -> None:
    for name in mixerkit.__all__:
        assert getattr(mixerkit, name).__module__.startswith("mixerkit."), name


def test_type_checkers_see_the_public_names_where_they_live() -> None:
    tree = ast.parse(Path(mixerkit.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(mixerkit.__all__)
    for name, module in seen.items():
        assert getattr(mixerkit, name).__module__ == module, name
