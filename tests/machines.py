"""Several hosts on this machine, each with a network, mounts and processes of its own, by a script ``hosts``.

As root, with iproute2. Outside of them is a bridge, on whose address services listen for all of them.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BRIDGES = range(40)
"""How many sets of hosts may run beside each other."""

SETUP = """set -e
mkdir /srv/shared; mount --bind {shared} /srv/shared
mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/cohobate; touch /run/names; mount --bind /run/names /etc/hosts
ip route add 8.8.8.8/32 via {outside}
"""
"""Of a host: /tmp, /run and the names of other hosts are its own, as a pod's are; /srv/shared is all hosts' and ours,
for what tests have to say to them. The route is what Ray asks the kernel for, to learn its own address; nobody answers
there."""


def script():
    """The script; a test is skipped where there is none."""
    found = Path(os.environ.get("COHOBATE_TEST_HOSTS", "none")) / "hosts"
    if not found.is_file() or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("COHOBATE_TEST_HOSTS names no folder with a script 'hosts', or it cannot run: no root, no iproute2")
    return found


class Hosts:
    """Those that run. They are numbered from 1 on."""

    def __init__(self, folder, number):
        self.folder = folder
        self.prefix = f"10.{77 + number}.0"
        self.variables = os.environ | {"PREFIX": self.prefix, "BRIDGE": f"br-hosts{number}"}

    @property
    def shared(self):
        """What is /srv/shared there."""
        return self.folder / "shared"

    @property
    def outside(self):
        """The address of this machine as they see it."""
        return self.address(254)

    def address(self, host):
        return f"{self.prefix}.{host}"

    def script(self, *argv, **options):
        return subprocess.run([script(), *map(str, argv)], env=self.variables, text=True, **options)

    def words(self, host, *argv, env):
        """The command that runs another one there, with this environment and no other."""
        given = [f"{name}={value}" for name, value in env.items()]
        return [str(script()), "on", str(self.folder), str(host), "env", "-i", *given, *argv]

    def start(self, host, *argv, env, log):
        """A process there that goes on; its output goes to the file ``log``."""
        with log.open("ab") as to:
            return subprocess.Popen(
                self.words(host, *argv, env=env), env=self.variables, stdin=subprocess.DEVNULL, stdout=to, stderr=to
            )

    def run(self, host, *argv, env=None, **options):
        """A process there that ends."""
        options = {"capture_output": True, "text": True, "timeout": 300} | options
        return subprocess.run(self.words(host, *argv, env=env or environment()), env=self.variables, **options)

    def names(self, host, known):
        """Let a host know the addresses of others by ``{name: address}``."""
        lines = [f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **known}.items()]
        self.run(host, "sh", "-c", "cat > /run/names", input="".join(lines), check=True)

    def kill(self, host):
        """All that runs there ends at once, and the host is gone."""
        self.script("kill", self.folder, host, check=True)


def environment(**more):
    """What the image gives every process."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    return {"PATH": path, "HOME": "/tmp", "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0", **more}  # noqa: S108


@contextlib.contextmanager
def running(folder, count):
    """So many hosts, until the block ends; then everything on them ends."""
    (folder / "shared").mkdir(parents=True)
    for number in BRIDGES:
        found = Hosts(folder, number)
        started = found.script("up", folder, count, capture_output=True)
        if "File exists" not in started.stderr:
            break
    try:
        assert started.returncode == 0, started.stderr
        for host in range(1, count + 1):
            done = found.run(host, "sh", "-c", SETUP.format(outside=found.outside, shared=found.shared))
            assert done.returncode == 0, done.stderr
        yield found
    finally:
        found.script("down", folder, check=True)
