"""Objects below a URI of an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure.

obstore repeats a request that failed for a while (5xx, a connection that was refused or cut), writes an object whole or not at all, and
writes on a condition: that no object has the name yet, or that it is still the one that was read.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlsplit

from diet_ray.errors import ConfigError, first_line
from diet_ray.storage.folder_store import CHUNK, About

if TYPE_CHECKING:
    from obstore import UpdateVersion

T = TypeVar("T")

RETRIES = 8
"""How often a request is sent again that failed for a while."""

RETRY_SECONDS = 60.0
"""Seconds after which a failed request is not sent again."""

SILENT_SECONDS = 60
"""Seconds without a byte after which a request has failed."""

CUT = "response body error"
"""What obstore says of an answer that was cut in its middle."""

CUT_ANSWERS = 4
"""How often a question is asked whose answers are cut."""

_ROLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables by which obstore itself finds credentials; without one of them it asks the machine for its role."""


@dataclass(frozen=True)
class Version:
    """An object as it was at one time."""

    content: bytes
    modified: float
    """When it was written, by the store's clock, in seconds since the epoch."""
    tag: UpdateVersion
    """Names it in a conditional write."""


class CloudStore:
    """The objects below a URI; names are relative to it, with slashes.

    Every method raises OSError where the store cannot be reached or refuses the request. Raises ValueError for a URI that it does not know.
    """

    def __init__(self, uri: str) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        parts = urlsplit(uri)
        if not parts.netloc:
            raise ValueError("no bucket is named")
        options: dict[str, Any] = {
            "config": _config(parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True))),
            "client_options": {"allow_http": True, "timeout": "1h", "read_timeout": f"{SILENT_SECONDS}s"},
            "retry_config": {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
            "credential_provider": _profile() if parts.scheme == "s3" else None,
        }
        try:
            self._store: Any = from_url(
                f"{parts.scheme}://{parts.netloc}{parts.path}",
                **{name: value for name, value in options.items() if value},
            )
        except BaseError as error:
            raise ValueError(first_line(error)) from error

    def read(self, name: str) -> Iterator[bytes]:
        """The content of an object, in pieces. Raises FileNotFoundError where there is none."""
        import obstore

        with _said():
            yield from obstore.get(self._store, name).stream(min_chunk_size=CHUNK)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write an object that appears whole or not at all, in the place of the one that has its name."""
        import obstore

        pieces = iter(chunks)
        first, second = next(pieces, b""), next(pieces, None)
        with _said():
            if second is None:
                obstore.put(self._store, name, first, use_multipart=False)
            else:
                obstore.put(self._store, name, chain([first, second], pieces), chunk_size=CHUNK, max_concurrency=4)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object that must not exist; False where it does."""
        return self._put(name, data, "create")

    def swap(self, name: str, data: bytes, tag: UpdateVersion) -> bool:
        """Write a small object in the place of the one with that tag; False where that one is not there any more."""
        return self._put(name, data, tag)

    def version(self, name: str) -> Version | None:
        """A small object with its tag; None where there is none."""
        import obstore

        def got() -> tuple[Any, bytes]:
            found = obstore.get(self._store, name)
            return found, bytes(found.bytes())

        try:
            found, content = _whole(got)
        except FileNotFoundError:
            return None
        tag: Any = {key: found.meta[key] for key in ("e_tag", "version") if found.meta[key] is not None}
        return Version(content, found.meta["last_modified"].timestamp(), tag)

    def sizes(self, folder: str, deep: bool) -> dict[str, int]:
        """Bytes of each object in a folder (with `deep`, also in subfolders) by its name in `folder`."""
        import obstore

        def listed() -> list[Any]:
            if deep:
                return list(chain.from_iterable(obstore.list(self._store, prefix=folder or None)))
            return list(obstore.list_with_delimiter(self._store, prefix=folder or None)["objects"])

        sizes = {posixpath.relpath(meta["path"] or ".", folder or "."): int(meta["size"]) for meta in _whole(listed)}
        # Other programs mark a folder by an empty object with its name; every file of ours has a dot in it.
        return {name: size for name, size in sizes.items() if size or "." in posixpath.basename(name).lstrip(".")}

    def about(self, name: str) -> About | None:
        """Size and time of an object; None where there is none."""
        import obstore

        try:
            with _said():
                meta = obstore.head(self._store, name)
        except FileNotFoundError:
            return None
        return About(meta["size"], meta["last_modified"].timestamp())

    def delete(self, name: str) -> None:
        """Remove an object, and those in the folder of that name. It need not exist."""
        import obstore

        def removed() -> None:
            inside = [meta["path"] for batch in obstore.list(self._store, prefix=name) for meta in batch]
            obstore.delete(self._store, [name, *inside])

        _whole(removed)

    def _put(self, name: str, data: bytes, mode: Literal["create"] | UpdateVersion, again: bool = True) -> bool:
        """A conditional write. It may be sent twice, because obstore does not ask `again` where the text of a refusal was cut."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with _said():
                obstore.put(self._store, name, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except OSError:
            if not again:
                raise
            return self._put(name, data, mode, again=False)
        return True


def _whole(ask: Callable[[], T]) -> T:
    """What the store answers to a question that may be asked twice; obstore does not ask again where an answer is cut in its middle."""
    for left in reversed(range(CUT_ANSWERS)):
        try:
            with _said():
                return ask()
        except OSError as error:
            if not left or CUT not in str(error):
                raise
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _said() -> Iterator[None]:
    """Make OSError of obstore's own errors: their first line, and what the store answered; the rest is for debugging."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (FileNotFoundError, AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, OSError) as error:
        answer = re.search(r"<Message>([^<\n]*)</Message>", str(error))
        raise OSError(first_line(error).partition(": <?xml")[0] + (f": {answer[1]}" if answer else "")) from error


def _config(scheme: str, query: Mapping[str, str]) -> dict[str, str]:
    """The store's settings in the query of a URI."""
    known = {"region", "endpoint_override", "scheme"} if scheme == "s3" else set()
    unknown = sorted(query.keys() - known)
    if unknown:
        raise ValueError(
            f"unknown parameter {unknown[0]!r}" + (f"; known are {', '.join(sorted(known))}" if known else "")
        )
    config = {"region": query["region"]} if "region" in query else {}
    if "endpoint_override" in query:
        config["endpoint"] = f"{query.get('scheme', 'https')}://{query['endpoint_override']}"
    return config


def _profile() -> Any:
    """What reads the credentials of a profile in `~/.aws`, as the AWS programs do; None where the environment or a role has them."""
    if any(name in os.environ for name in _ROLES):
        return None
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()
    if "AWS_PROFILE" not in os.environ and not file.exists():
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except ImportError as error:
        raise ConfigError(
            f"{file}: a profile is read by boto3, which is not installed; pip install boto3, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        ) from error
    except Exception as error:  # of botocore: no such profile, no credentials in it
        raise ConfigError(f"{file}: no credentials ({first_line(error)}); correct it, or set AWS_PROFILE") from error
