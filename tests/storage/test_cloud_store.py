"""An object store: what other programs leave in it, and where its credentials come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diet_ray.errors import ConfigError
from diet_ray.storage.remote import Remote
from tests.support.object_store import SECRET, objects, s3


@pytest.fixture
def uri(endpoint: str, tmp_path: Path) -> str:
    return f"s3://memories/{tmp_path.name}/run"


def test_the_marks_of_folders_are_no_files(uri: str) -> None:
    prefix = uri.removeprefix("s3://memories/")
    for folder in ("", "/stages", "/stages/0003"):
        s3().put_object(Bucket="memories", Key=f"{prefix}{folder}/", Body=b"")
    remote = Remote(uri)
    remote.put("stages/0000/manifest.json", b"")
    remote.put("run.json", b"x")
    assert remote.sizes() == {"run.json": 1}
    assert remote.sizes("stages", deep=True) == {"0000/manifest.json": 0}
    assert remote.size("stages/0000/manifest.json") == 0
    remote.delete("stages/0000")
    remote.delete("stages/0000")
    assert remote.sizes(deep=True) == {"run.json": 1}


def test_a_profile_gives_the_credentials(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[work]\naws_access_key_id = tester\naws_secret_access_key = {SECRET}\n")
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        patch.setenv("AWS_PROFILE", "work")
        Remote(uri).put("run.json", b"x")
        patch.setenv("AWS_PROFILE", "other")
        with pytest.raises(ConfigError, match=r"credentials: no credentials \(.*other.*\); correct it"):
            Remote(uri)
        patch.setitem(sys.modules, "obstore.auth.boto3", None)
        with pytest.raises(ConfigError, match="read by boto3, which is not installed; pip install boto3, or set AWS_"):
            Remote(uri)
    assert objects(uri) == {"run.json": b"x"}
