"""A bucket on moto's server, which runs in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.stores.buckets import BUCKET, Proxy, client, emptied, proxying


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    pytest.importorskip("s3fs")
    pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("ENDPOINT_OF_TESTS", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client().create_bucket(Bucket=BUCKET)
    yield BUCKET
    emptied()


@pytest.fixture
def proxy(bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    assert bucket
    with proxying(endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
