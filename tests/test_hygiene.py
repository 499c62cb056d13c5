"""What must not be in the repository: paths of one machine, hosts of registries, pickles.

The patterns are put together from parts, so that this file does not hold them itself.
"""

import ast
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = [
    "/wo" + "rk/",
    "/fa" + "rm/",
    "/opt/" + "wheels",
    "/opt/" + "pypi",
    "pypi" + ".org",
    "python" + "hosted",
    "deb." + "debian",
    "registry." + "npm",
]
PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".ckpt"}
PICKLE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLE_CALLS = {"torch.load", "torch.save"}


NOT_OURS = {"runs", "build", "dist", "__pycache__"}


def tracked(root: Path) -> list[Path]:
    """What git tracks below `root`; none where there is no git, or no repository."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    if not shutil.which("git"):
        return []
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return [root / name for name in done.stdout.split("\0") if name]


def walked(root: Path) -> list[Path]:
    """Everything below `root` but hidden folders and what our commands leave there."""
    parents = [(path, path.relative_to(root).parts[:-1]) for path in root.rglob("*")]
    return [
        path
        for path, parts in parents
        if not any(part in NOT_OURS or part.startswith(".") for part in parts)
        and not any(part.endswith(".egg-info") for part in parts)
    ]


def files(root: Path = ROOT) -> list[Path]:
    """The files of the project: of a clone, or of an archive without git."""
    return sorted(path for path in tracked(root) or walked(root) if path.is_file())


def forbidden_in(content: bytes) -> list[str]:
    return [pattern for pattern in FORBIDDEN if pattern.encode() in content]


def test_no_machine_paths_and_no_registry_hosts():
    found = {
        path.relative_to(ROOT).as_posix(): patterns
        for path in files()
        if (patterns := forbidden_in(path.read_bytes()))
    }
    assert found == {}


def is_pickle(path: Path) -> bool:
    starts_as_one = path.read_bytes()[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}
    return path.suffix in PICKLE_SUFFIXES or starts_as_one


def test_no_pickles():
    assert [path.name for path in files() if is_pickle(path)] == []


def unpickling(source: str) -> list[str]:
    """Imports and calls through which data could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            only_the_error = [alias.name for alias in node.names] == ["UnpicklingError"]
            found += [] if only_the_error else [str(node.module)]
        elif isinstance(node, ast.Call):
            safely = "weights_only=True" in [ast.unparse(word) for word in node.keywords]
            found += [] if safely else [ast.unparse(node.func)]
    return [
        name for name in found if name in PICKLE_CALLS or name.partition(".")[0] in PICKLE_MODULES
    ]


def test_the_package_neither_reads_nor_writes_pickles():
    sources = (ROOT / "mixerkit").rglob("*.py")
    found = {path.name: unpickling(path.read_text(encoding="utf-8")) for path in sources}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_no_file_is_larger_than_two_megabytes():
    assert [path.name for path in files() if path.stat().st_size > 2_100_000] == []


def test_an_archive_without_git_is_checked_too(tmp_path):
    for name in ("README.md", "mixerkit/a.py", ".venv/x.py", "mixerkit/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert files(tmp_path) == [tmp_path / "README.md", tmp_path / "mixerkit" / "a.py"]


def test_the_checks_see_what_they_look_for(tmp_path):
    assert forbidden_in(b"see /wo" + b"rk/main") == ["/wo" + "rk/"]
    assert unpickling("import pickle\ntorch.load(path)\nfrom joblib import dump") == [
        "pickle", "joblib", "torch.load",
    ]  # fmt: skip
    assert unpickling("torch.load(path, weights_only=False)") == ["torch.load"]
    assert unpickling("from pickle import UnpicklingError, load") == ["pickle"]
    (tmp_path / "weights").write_bytes(b"\x80\x04rest")
    assert is_pickle(tmp_path / "weights")


@pytest.mark.parametrize("host", ["example.com", "192.0.2.1", b"example.com"])
def test_the_network_is_blocked(host):
    with pytest.raises(OSError, match="tests are offline"):
        socket.create_connection((host, 80), timeout=1)


def test_this_machine_itself_is_not_blocked():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
    left, right = socket.socketpair()
    left.send(b"x")
    assert right.recv(1) == b"x"
    left.close()
    right.close()
