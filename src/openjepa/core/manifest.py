"""Checksums of files, kept beside them in manifest.json, so that damage is refused and never used in silence.

{"config.yaml": ["5f0c..."], "assets/tokenizer.json": ["a81e..."]}

Each name has the BLAKE2b digests that its file may have: one, or two for the instant in which the file is replaced.
Hashing streams a file once, at about 1 GB/s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from openjepa.core.atomic import replaced_file
from openjepa.core.errors import DamageError

MANIFEST = "manifest.json"
DIGEST_BYTES = 16
_blake2b = partial(hashlib.blake2b, digest_size=DIGEST_BYTES)


def write_manifest(folder: Path, files: Iterable[Path]) -> None:
    """Write the checksums of these files of `folder`, in place of an earlier manifest."""
    _write(folder, {file.relative_to(folder).as_posix(): [digest_of(file)] for file in sorted(files)})


def replace_listed(folder: Path, name: str, content: str) -> None:
    """Replace the text of a file of the manifest: a crash in between leaves the old or the new one, both as listed."""
    listed = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    digest = _blake2b(content.encode()).hexdigest()
    _write(folder, {**listed, name: sorted({*listed.get(name, []), digest})})
    with replaced_file(folder / name) as temporary:
        temporary.write_text(content, encoding="utf-8")
    _write(folder, {**listed, name: [digest]})


def read_manifest(folder: Path) -> dict[str, list[str]]:
    """The digests by file name. Raises DamageError if there is no manifest, or none that can be read."""
    file = folder / MANIFEST
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): [str(digest) for digest in digests] for name, digests in listed.items()}
    except FileNotFoundError:
        raise DamageError(f"{folder} has no {MANIFEST}, so nothing tells whether its files are whole") from None
    except (ValueError, AttributeError, TypeError):
        raise DamageError(f"{file} is damaged: it is not the JSON object that was written") from None


def require_whole(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raises DamageError naming the first file of `names` (None = all of the manifest) that is not what was written."""
    listed = read_manifest(folder)
    for name in listed if names is None else names:
        if name not in listed:
            raise DamageError(f"{folder / name} is not in {folder / MANIFEST}, so nothing tells whether it is whole")
        file = folder / name
        if not file.is_file():
            raise DamageError(f"{file} is gone, though {folder / MANIFEST} lists it")
        try:
            whole = digest_of(file) in listed[name]
        except OSError as error:
            raise DamageError(f"{file} cannot be read: {error.strerror}") from error
        if not whole:
            raise DamageError(f"{file} is damaged: its checksum is not that of {folder / MANIFEST}")


def digest_of(file: Path) -> str:
    """The BLAKE2b digest of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, _blake2b).hexdigest()


def _write(folder: Path, listed: dict[str, list[str]]) -> None:
    with replaced_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
