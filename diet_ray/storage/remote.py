"""Files below a URI that `pyarrow.fs` supports, such as s3://bucket/prefix: the operations that an archive needs.

An object appears when its upload is closed. An upload that an exception ends is closed too, with the bytes sent so far. So manifests and
locks are written by `put`: first under another name, then moved.
"""

from __future__ import annotations

import hashlib
import posixpath
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from diet_ray.errors import ConfigError, CorruptArtefactError, UnreachableError
from diet_ray.settings import JSON_BYTES
from diet_ray.storage.folder_store import FolderStore, LinkError
from diet_ray.storage.places import is_uri

CHUNK = 8 << 20
"""Bytes of a file that a transfer holds in memory."""


class Interrupted(Exception):
    """`Remote.stop` was set during an upload."""


class Remote:
    """The files below a URI; names are relative to it, with slashes.

    Every method raises UnreachableError where the store cannot be reached or refuses the request, and CorruptArtefactError where a name in
    a folder (file://) is a link. Credentials come from the environment,
    as for any AWS program, and no message contains them.

    Attributes:
        uri: the URI without its query.
        stop: set it to end a running upload with `Interrupted`.
    """

    def __init__(self, uri: str) -> None:
        try:
            parts = urlsplit(uri)
        except ValueError:
            parts = urlsplit("")
        self.uri = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self.stop = threading.Event()
        if not is_uri(uri) or not parts.scheme:
            raise ConfigError(
                f"{uri.partition('?')[0]}: not a URI; write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"
            )
        if "@" in parts.netloc:
            raise ConfigError(
                f"{self.uri}: the URI holds credentials; leave them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        try:
            base, path = FileSystem.from_uri(uri)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ConfigError(
                f"{self.uri}: cannot hold an archive ({str(error).replace(uri, self.uri)}); write s3://BUCKET/PREFIX, "
                "gs://BUCKET/PREFIX or file:///FOLDER"
            ) from error
        local = isinstance(base, LocalFileSystem)
        self.fs: Any = PyFileSystem(FolderStore(Path(path))) if local else SubTreeFileSystem(path, base)

    def at(self, name: str) -> str:
        """The URI of a file."""
        return f"{self.uri}/{name}" if name else self.uri

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where it does not exist. Raises CorruptArtefactError where it is too large."""
        with self._reached(name):
            try:
                with self.fs.open_input_stream(name) as stream:
                    data: bytes = stream.read(JSON_BYTES + 1)
            except FileNotFoundError:
                return None
        if len(data) > JSON_BYTES:
            raise CorruptArtefactError(
                f"{self.at(name)}: has more than {JSON_BYTES >> 20} MiB, too much for a manifest; restore it from a copy"
            )
        return data

    def put(self, name: str, data: bytes, *, draft: str | None = None) -> None:
        """Write a small file that appears whole or not at all; until it is whole, its name is `draft`."""
        draft = draft or posixpath.join(posixpath.dirname(name), f".{posixpath.basename(name)}.tmp")
        with self._reached(name):
            with self._sink(draft) as sink:
                sink.write(data)
            self.fs.move(draft, name)

    def send(self, path: Path, name: str) -> str:
        """Upload a file of any size; returns the checksum of the bytes sent."""
        digest = hashlib.sha256()
        with path.open("rb") as file, self._reached(name), self._sink(name) as sink:
            while chunk := file.read(CHUNK):
                if self.stop.is_set():
                    raise Interrupted
                digest.update(chunk)
                sink.write(chunk)
        return digest.hexdigest()

    def fetch(self, name: str, path: Path, on_bytes: Callable[[int], None] = lambda n: None) -> str:
        """Download a file of any size; returns the checksum of the bytes received. `on_bytes` is called with the size of each piece.

        Raises ConfigError where `path` cannot be written.
        """
        digest = hashlib.sha256()
        with self._reached(name), self.fs.open_input_stream(name) as stream, path.open("wb") as file:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:  # the disk is at fault, not the store
                    raise ConfigError(
                        f"{path}: cannot be written ({error.strerror}); make room or choose another place"
                    ) from error
                on_bytes(len(chunk))
        return digest.hexdigest()

    def sha256(self, name: str) -> str:
        """Checksum of a file. The file is downloaded for it and not kept."""
        digest = hashlib.sha256()
        with self._reached(name), self.fs.open_input_stream(name) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def sizes(self, folder: str = "", *, deep: bool = False) -> dict[str, int]:
        """Bytes of each file in a folder (with `deep`, also in subfolders) by its name in `folder`, sorted; empty for a missing folder."""
        with self._reached(folder):
            infos = self.fs.get_file_info(FileSelector(folder, recursive=deep, allow_not_found=True))
        files = {posixpath.relpath(info.path, folder or "."): info.size for info in infos if info.type == FileType.File}
        return dict(sorted(files.items()))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it does not exist."""
        with self._reached(name):
            info: FileInfo = self.fs.get_file_info(name)
        return int(info.size) if info.type == FileType.File else None

    def modified(self, name: str) -> float | None:
        """When a file was written, by the store's clock, in seconds since the epoch; None where it does not exist."""
        with self._reached(name):
            info: FileInfo = self.fs.get_file_info(name)
        return None if info.mtime is None else float(info.mtime.timestamp())

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with its content. It need not exist."""
        with self._reached(name), suppress(FileNotFoundError):
            if self.fs.get_file_info(name).type == FileType.Directory:
                self.fs.delete_dir(name)
            else:
                self.fs.delete_file(name)

    def _sink(self, name: str) -> Any:
        try:
            return self.fs.open_output_stream(name)
        except FileNotFoundError:  # a file system whose folders must be created first
            self.fs.create_dir(posixpath.dirname(name), recursive=True)
            return self.fs.open_output_stream(name)

    @contextmanager
    def _reached(self, name: str) -> Iterator[None]:
        try:
            yield
        except LinkError as error:
            raise CorruptArtefactError(
                f"{self.at(error.name)}: is a link, or lies behind one, and may lead out of the archive; remove it by hand, and see who "
                "can write there"
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise UnreachableError(
                f"{self.at(name)}: cannot be reached ({error}); check the bucket, its endpoint and your rights "
                "(the AWS_* variables), then try again; a run goes on with --resume"
            ) from error
