"""Files below a URI, such as s3://bucket/prefix or file:///folder: the operations that an archive needs.

A file appears whole or not at all, whatever ends its transfer.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from diet_ray.errors import ConfigError, CorruptArtefactError, UnreachableError, first_line
from diet_ray.links import no_link
from diet_ray.settings import JSON_BYTES
from diet_ray.storage.cloud_store import CloudStore
from diet_ray.storage.folder_store import CHUNK, FolderStore
from diet_ray.storage.places import is_uri


class Interrupted(Exception):
    """`Remote.stop` was set during an upload."""


class Remote:
    """The files below a URI; names are relative to it, with slashes.

    Every method raises UnreachableError where the store cannot be reached or refuses the request, and CorruptArtefactError where a name in
    a folder (file://) is a link. Credentials come from the environment, as for any AWS program, and no message contains them.

    Attributes:
        uri: the URI without its query.
        store: what reads and writes there.
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
        if "@" in parts.netloc and parts.scheme != "abfss":
            raise ConfigError(
                f"{self.uri}: the URI holds credentials; leave them out and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        self.store: FolderStore | CloudStore
        try:
            if parts.scheme != "file":
                self.store = CloudStore(uri)
            elif parts.netloc or parts.query:
                raise ValueError("a folder has no host and no parameters")
            else:
                self.store = FolderStore(Path(unquote(parts.path)))
        except ValueError as error:
            raise ConfigError(
                f"{self.uri}: cannot hold an archive ({error}); write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"
            ) from error

    def at(self, name: str) -> str:
        """The URI of a file."""
        return f"{self.uri}/{name}" if name else self.uri

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where it does not exist. Raises CorruptArtefactError where it is too large."""
        data = b""
        try:
            for chunk in self._chunks(name):
                data += chunk
                if len(data) > JSON_BYTES:
                    break
        except FileNotFoundError:
            return None
        if len(data) > JSON_BYTES:
            raise CorruptArtefactError(
                f"{self.at(name)}: has more than {JSON_BYTES >> 20} MiB, too much for a manifest; restore it from a copy"
            )
        return data

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file that must not exist; False where it does. See `FolderStore.create` for its limit in a folder."""
        with self.reached(name):
            return self.store.create(name, data)

    def put(self, name: str, data: bytes) -> None:
        """Write a small file, in the place of the one that has its name."""
        with self.reached(name):
            self.store.write(name, [data])

    def send(self, path: Path, name: str) -> str:
        """Upload a file of any size; returns the checksum of the bytes sent."""
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(CHUNK):
                if self.stop.is_set():
                    raise Interrupted
                digest.update(chunk)
                yield chunk

        with open(path, "rb", opener=no_link) as file, self.reached(name):
            self.store.write(name, chunks())
        return digest.hexdigest()

    def fetch(self, name: str, path: Path, on_bytes: Callable[[int], None] = lambda n: None) -> str | None:
        """Download a file of any size; returns the checksum of the bytes received, or None where the file does not exist.

        `on_bytes` is called with the size of each piece. Raises ConfigError where `path` cannot be written.
        """
        chunks, digest = self._chunks(name), hashlib.sha256()
        try:
            first = next(chunks)
        except FileNotFoundError:
            return None
        try:
            with open(path, "wb", opener=no_link) as file:
                for chunk in chain([first], chunks):
                    digest.update(chunk)
                    file.write(chunk)
                    on_bytes(len(chunk))
        except OSError as error:  # the disk is at fault, not the store
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); make room or choose another place"
            ) from error
        return digest.hexdigest()

    def sha256(self, name: str) -> str | None:
        """Checksum of a file, which is downloaded for it and not kept; None where it does not exist."""
        digest = hashlib.sha256()
        try:
            for chunk in self._chunks(name):
                digest.update(chunk)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def sizes(self, folder: str = "", *, deep: bool = False) -> dict[str, int]:
        """Bytes of each file in a folder (with `deep`, also in subfolders) by its name in `folder`, sorted; empty for a missing folder.

        A store may list a new file late. So the absence of a file is no proof that it is missing; `size` is.
        """
        with self.reached(folder):
            return dict(sorted(self.store.sizes(folder, deep).items()))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where it does not exist."""
        with self.reached(name):
            about = self.store.about(name)
        return about.bytes if about else None

    def modified(self, name: str) -> float | None:
        """When a file was written, by the store's clock, in seconds since the epoch; None where it does not exist."""
        with self.reached(name):
            about = self.store.about(name)
        return about.modified if about else None

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with its content. It need not exist."""
        with self.reached(name):
            self.store.delete(name)

    def _chunks(self, name: str) -> Iterator[bytes]:
        """A file in pieces, at least one. Raises FileNotFoundError, before the first, where it does not exist."""
        chunks = self.store.read(name)
        with self.reached(name, but=FileNotFoundError):
            first = next(chunks, b"")
        yield first
        with self.reached(name):
            yield from chunks

    @contextmanager
    def reached(self, name: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
        """Make UnreachableError of an OSError in the body, except of that kind."""
        try:
            yield
        except but:
            raise
        except OSError as error:
            raise UnreachableError(
                f"{self.at(name)}: cannot be reached ({first_line(error)}); check the bucket, its region and endpoint and your rights "
                "(the AWS_* variables), then try again; a run goes on with --resume"
            ) from error
