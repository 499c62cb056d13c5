"""onnxruntime-web for a page: fetched by the user's own npm, checked, kept in the user's cache.

Of its builds, the one for WebAssembly alone is the smallest. It has threads, and runs on one where
a server does not send the headers that more of them need.
"""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mixerkit.checkpoint.files import write_atomic
from mixerkit.download import cache_folder, is_offline
from mixerkit.errors import UserError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""Of the archive that npm packs."""
PATIENCE = 300


@dataclass(frozen=True)
class Taken:
    """A file that a page needs. `name`: of the file in the package's `dist/`; `served`: under which
    name every web server knows what it is."""

    name: str
    served: str
    sha256: str


SCRIPT = Taken(
    "ort.wasm.bundle.min.mjs",
    "ort.wasm.bundle.min.js",
    "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
)
WASM = Taken(
    "ort-wasm-simd-threaded.wasm",
    "ort-wasm-simd-threaded.wasm",
    "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
)
TAKEN = (SCRIPT, WASM)


def runtime_files(folder: Path | None = None) -> dict[Taken, bytes]:
    """The files' contents: out of `folder`, where it is given, else out of the user's cache, which
    npm fills when it must. `UserError`: they are not to be had, or others than expected."""
    if folder:
        return {one: _read(folder, one) for one in TAKEN}
    kept = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not all((kept / one.name).exists() for one in TAKEN):
        _fetch(kept)
    return {one: _read(kept, one) for one in TAKEN}


def _read(folder: Path, one: Taken) -> bytes:
    places = (folder / one.name, folder / "dist" / one.name, folder / "package" / "dist" / one.name)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"{folder} has no {one.name}: expected files of npm's {PACKAGE} {VERSION}.")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != one.sha256:
        raise UserError(
            f"{path} is not that of {PACKAGE} {VERSION}: expected SHA-256 {one.sha256}, found "
            f"{found}. Remove it, or take that version."
        )
    return content


def _fetch(kept: Path) -> None:
    """Fill the cache."""
    if is_offline():
        raise UserError(
            f"A page needs npm's package {PACKAGE} {VERSION}, {kept} does not have it, and "
            f"MIXERKIT_OFFLINE forbids to fetch it: {BY_HAND}"
        )
    with tempfile.TemporaryDirectory(prefix="mixerkit-") as temporary:
        archive = npm_pack(f"{PACKAGE}@{VERSION}", SHA512, Path(temporary), BY_HAND)
        kept.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for one in TAKEN:
                content = packed.extractfile(f"package/dist/{one.name}")
                assert content, one.name
                write_atomic(kept / one.name, content.read())


BY_HAND = (
    f"get it where there is a network (npm pack {PACKAGE}@{VERSION}, then tar -xf the archive) and "
    f"give its folder with --runtime-files."
)


def npm_pack(package: str, sha512: str, folder: Path, otherwise: str) -> Path:
    """The archive of a package, fetched by npm into `folder`; nothing in it is run. `UserError`:
    npm is not there or fails, or the archive is another one; `otherwise` says what to do then."""
    command = ["npm", "pack", package, "--pack-destination", str(folder), "--ignore-scripts"]
    if not shutil.which("npm"):
        raise UserError(f"{package} comes from npm, which is not installed: {otherwise}")
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm took {PATIENCE} s over {package}: {otherwise}") from error
    (archive,) = list(folder.glob("*.tgz")) if not done.returncode else [None]
    if archive is None:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise UserError(f"npm could not fetch {package}: {said[0]} Or {otherwise}")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").hexdigest()
    if found != sha512:
        raise UserError(
            f"The archive of {package} that npm fetched is not the expected one: its SHA-512 is "
            f"{found}, expected {sha512}."
        )
    return archive
