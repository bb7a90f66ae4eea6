#!/usr/bin/env bash
# Prometheus does not see the files of file-based service discovery whose folder is made after it has started: only a
# folder that is there when it starts is watched. Of a late one it hears at the next refresh, by default 5 minutes later.
#
# Version: prometheus 2.42.0 (Debian's package 2.42.0+ds-5+deb12u1).
# Seen: of two jobs with `file_sd_configs: [{files: [FOLDER/*.json]}]`, one whose folder exists and one whose folder is
#   made 2 s after the start, both given a file then: the first has its target within a second, the second none after
#   10 s. With `refresh_interval: 2s` a third job, whose folder is late as well, has its target.
#   A platform that makes its folder of metrics anew at each start is not scraped for up to 5 minutes.
# Expected: a late folder is watched once it is there, as a late file is.
# Exits 0 while that is so, 1 once it is not.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server" || true; }; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq prometheus=2.42.0+ds-5+deb12u1
dpkg -x prometheus_*.deb root
mkdir early
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > prometheus.yml <<CONFIG
scrape_configs:
  - {job_name: early, file_sd_configs: [{files: ['$folder/early/*.json']}]}
  - {job_name: late, file_sd_configs: [{files: ['$folder/late/*.json']}]}
  - {job_name: refreshed, file_sd_configs: [{files: ['$folder/late/*.json'], refresh_interval: 2s}]}
CONFIG
root/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$port" \
  --log.level=error &
server=$!
python3 - "$port" <<'PYTHON'
import json
import pathlib
import sys
import time
import urllib.request


def ask(path):
    return urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}{path}", timeout=10).read()


def jobs():
    found = json.loads(ask("/api/v1/targets?state=active"))["data"]["activeTargets"]
    return {target["labels"]["job"] for target in found}


def until(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def ready():
    try:
        return bool(ask("/-/ready"))
    except OSError:
        return False


until(ready)
time.sleep(2.0)
entry = json.dumps([{"targets": ["127.0.0.1:9"]}])
pathlib.Path("late").mkdir()
for name in ("early", "late"):
    pathlib.Path(name, "a.json").write_text(entry)
until(lambda: {"early", "refreshed"} <= jobs())
time.sleep(10.0)
found = jobs()
print(f"targets of: {', '.join(sorted(found))}")
sys.exit(0 if found == {"early", "refreshed"} else 1)
PYTHON
