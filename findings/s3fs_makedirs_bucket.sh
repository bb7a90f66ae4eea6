#!/usr/bin/env bash
# Asking s3fs for a folder makes a bucket: makedirs of a key's parent creates the bucket that the key is in, where there
# is none, so that a misspelt bucket is taken, filled and read, and no error tells of it.
#
# Versions: s3fs 2026.9.0, fsspec 2026.9.0, moto 5.2.2 (the S3 that is asked).
# Seen: a bucket of another name exists. open(..., "wb") of a key in one that does not exist raises FileNotFoundError;
#   after makedirs(parent, exist_ok=True), which code that is written for any fsspec filesystem calls first, the bucket
#   is there, and the same write succeeds.
# Expected: makedirs below a bucket makes no bucket, as folders are nothing that S3 has; mkdir of the bucket itself does.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  s3fs==2026.9.0 fsspec==2026.9.0 aiobotocore==3.10.0 'moto[s3,server]==5.2.2'
cat > "$folder/look.py" <<'PYTHON'
import sys

import s3fs
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
s3 = s3fs.S3FileSystem(key="any", secret="any", endpoint_url=f"http://{host}:{port}", skip_instance_cache=True)
s3.mkdir("right")


def buckets():
    s3.invalidate_cache()
    return sorted(s3.ls("", detail=False))


try:
    s3.pipe_file("wrong/models/a", b"1")
    refused = False
except FileNotFoundError:
    refused = True
before = buckets()
s3.makedirs("wrong/models", exist_ok=True)
after = buckets()
s3.pipe_file("wrong/models/a", b"1")
server.stop()
print(f"a write without the bucket is refused: {refused}; buckets before {before}, after makedirs {after}")
sys.exit(0 if refused and before == ["right"] and after == ["right", "wrong"] else 1)
PYTHON
"$folder/venv/bin/python" "$folder/look.py"
