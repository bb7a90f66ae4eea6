#!/usr/bin/env bash
# Ray 2.60.0 starts every worker process at niceness 15, actors that serve requests included; its driver stays at 0.
# Beside anything of niceness 0 that wants the core, such a worker gets about a thirtieth of it (Linux' weights are 36
# and 1024): a Ray Serve replica or proxy that answers in milliseconds alone stands still on a machine that builds or
# trains something, and Serve's own start then gives up ("HTTP proxies not available after 60s").
# RAY_worker_niceness=0 in the environment of whoever starts Ray changes that.
# Seen: "default 15, with RAY_worker_niceness=0: 0".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install --quiet ray==2.60.0

cat > "$folder/niceness.py" <<'PYTHON'
import os

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")


@ray.remote
class Actor:
    def niceness(self):
        return os.nice(0)


print(ray.get(Actor.remote().niceness.remote()) - os.nice(0))
ray.shutdown()
PYTHON

export RAY_USAGE_STATS_ENABLED=0
default=$("$folder/venv/bin/python" "$folder/niceness.py" 2>"$folder/log" | tail -1)
zero=$(RAY_worker_niceness=0 "$folder/venv/bin/python" "$folder/niceness.py" 2>"$folder/log" | tail -1)
echo "default $default, with RAY_worker_niceness=0: $zero"
[ "$default $zero" = "15 0" ]
