"""A real S3 store (SeaweedFS) for the tests that want one."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.ports import free_ports

BUCKET = "cohobate"

GRACE = 240.0
"""Seconds until it has started, on a busy machine."""


@contextlib.contextmanager
def running(address="127.0.0.1"):
    """The environment of who uses the store: its address and credentials, as every client of S3 reads them."""
    folder = tempfile.mkdtemp(prefix="object-store-")
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port.grpc", "s3.port"), free_ports(8), strict=True))
    options = {
        **ports, "ip": address, "ip.bind": address, "dir": folder, "master.volumeSizeLimitMB": 64,
        "volume.max": 20, "volume.preStopSeconds": 0, "s3.autoCreateBucket": "false", "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }  # fmt: skip
    flags = [f"-{name}={value}" for name, value in options.items()]
    command = [str(Path(sys.executable).with_name("weed")), "server", "-filer", "-s3", *flags]
    with (Path(folder) / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    environment = {
        "AWS_ENDPOINT_URL": f"http://{address}:{ports['s3.port']}", "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    try:
        _bucket(environment, server, Path(folder) / "log")
        yield environment
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def _bucket(environment, server, log):
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.Session(
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    ).client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], config=Config(retries={"total_max_attempts": 1}))
    deadline = time.monotonic() + GRACE
    with contextlib.closing(client):
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
                return
            except (BotoCoreError, ClientError):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.1)
