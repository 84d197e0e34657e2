"""A real S3-compatible server on loopback, and its objects as others see them: without our own code or pyarrow's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

SECRET = "a-secret-that-nobody-must-read"


@contextmanager
def served() -> Iterator[str]:
    """The server's HOST:PORT, with one bucket, and the AWS environment that leads to it, for the length of the body."""
    with pytest.MonkeyPatch.context() as patch:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3().create_bucket(Bucket="memories")
        yield f"{host}:{port}"
        server.stop()


def s3() -> Any:
    return boto3.client("s3")


def objects(uri: str) -> dict[str, bytes]:
    """What lies below a URI."""
    if uri.startswith("file://"):
        root = Path(uri.removeprefix("file://"))
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", []) if not entry["Key"].endswith("/")]
    return {key.removeprefix(f"{prefix}/"): s3().get_object(Bucket=name, Key=key)["Body"].read() for key in keys}


def write(uri: str, name: str, data: bytes | None) -> None:
    """Replace an object, or remove it."""
    if uri.startswith("file://"):
        path = Path(uri.removeprefix("file://")) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        return
    place, _, prefix = uri.removeprefix("s3://").partition("/")
    if data is None:
        s3().delete_object(Bucket=place, Key=f"{prefix}/{name}")
    else:
        s3().put_object(Bucket=place, Key=f"{prefix}/{name}", Body=data)
