"""A store shared through S3, as s3fs speaks it with moto's server: the same promises as for a folder."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from store.remote.test_client import commit, digest, holds, key, names

from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.store import sync
from cpu_pipeline.store.lease import leased
from cpu_pipeline.store.local import Store
from cpu_pipeline.store.remote.client import Remote
from cpu_pipeline.store.remote.urls import Denied

URL = "s3://bucket/some/store"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a server with one bucket; give a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "geheim", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    # What one server kept, the next one of this process would have.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    with leased(made) as lease:
        commit(lease, 0)
        commit(lease, 1)
    return made


def listed(s3: Any) -> dict[str, Any]:
    found = s3.list_objects_v2(Bucket="bucket").get("Contents", ())
    return {each["Key"]: each["LastModified"] for each in found}


def test_there_and_back(s3: Any, store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    assert sync.pull(Store(tmp_path / "none"), Remote(URL, said.append)).moved == []
    assert names(sync.push(store, Remote(URL, said.append)).moved) == store.keys()
    before = listed(s3)
    assert len(before) == 8 and all(name.startswith("some/store/") for name in before)
    assert sync.push(store, Remote(URL, said.append)).moved == []
    assert listed(s3) == before
    other = Store(tmp_path / "other")
    assert names(sync.pull(other, Remote(URL, said.append)).moved) == store.keys()
    holds(other, store, 0, 1)
    with leased(Store(tmp_path / "third", Remote(URL, said.append, lenient=True))) as lease:
        assert lease.find(key(0)) is not None and lease.find(key(7)) is None
    assert said == []


def test_damage_is_a_miss_and_a_push_mends_it(s3: Any, store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    sync.push(store, Remote(URL, said.append))
    [one] = [name for name in listed(s3) if name.endswith(f"{digest(store, 0)}/model.onnx")]
    [two] = [name for name in listed(s3) if name.endswith(f"{digest(store, 1)}/empty")]
    s3.put_object(Bucket="bucket", Key=one, Body=b"lie")
    s3.delete_object(Bucket="bucket", Key=two)
    other = Store(tmp_path / "other")
    assert names(sync.pull(other, Remote(URL, said.append)).missing) == store.keys() and len(said) == 2
    assert names(sync.push(store, Remote(URL, said.append)).moved) == store.keys()
    sync.pull(other, Remote(URL, said.append))
    holds(other, store, 0, 1)


def test_what_cannot_be_reached_or_written_is_clear(
    s3: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"s3://none/store does not let itself be written: .*bucket"):
        sync.push(store, Remote("s3://none/store", print))
    assert s3.list_buckets()["Buckets"][0]["Name"] == "bucket" and len(s3.list_buckets()["Buckets"]) == 1
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Denied, match="redentials"):
        sync.pull(Store(tmp_path / "other"), Remote(URL, print))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(TryAgain, match="can't be reached") as error:
        sync.pull(Store(tmp_path / "other"), Remote(URL, print))
    assert "geheim" not in str(error.value)
