"""A real PostgreSQL for the tests that want one, with a database of its own for each."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.ports import free_port

PLACES = ("/usr/lib/postgresql/*/bin/initdb", "/usr/pgsql-*/bin/initdb")
"""Where distributions put the programs of a server, which they keep off the path."""

LOSSY = ("fsync", "synchronous_commit", "full_page_writes")
"""What a server that nobody misses need not do."""


def programs():
    """The folder of PostgreSQL's server programs; None where there is none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = [place for pattern in PLACES for place in Path("/").glob(pattern.lstrip("/"))]
    return max(places).parent if places else None


class Postgres:
    """A server, started in a folder of its own at an address; it runs as another user where we are root."""

    def __init__(self, folder, port, address="127.0.0.1"):
        self.folder, self.port, self.address, self._made = folder, port, address, 0
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(self, program, *args):
        """One of the server's programs."""
        command = [*self._as, str(programs() / program), *args]
        done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self):
        """Start it, and wait until it answers."""
        log, data = f"{self.folder}/log", f"{self.folder}/data"
        options = f"-p {self.port} -h {self.address} -k '' " + " ".join(f"-c {name}=off" for name in LOSSY)
        self.run("pg_ctl", "start", "--wait", "--timeout=240", "--pgdata", data, "--log", log, "--options", options)

    def stop(self, mode="fast"):
        """Stop it; who is connected is cut off. ``immediate``: it keeps nothing."""
        self.run("pg_ctl", "stop", "--wait", "--timeout=240", f"--mode={mode}", "--pgdata", f"{self.folder}/data")

    def database(self, template="template0"):
        """The URL of a new database."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, name):
        """The URL of a database."""
        return f"postgresql+psycopg://cohobate@{self.address}:{self.port}/{name}"

    def execute(self, sql):
        """Run SQL as the owner of everything, and return its rows."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                done = connection.execute(text(sql))
                return done.all() if done.returns_rows else []
        finally:
            engine.dispose()


@contextlib.contextmanager
def running(address="127.0.0.1", port=None):
    """A server that is gone with all its data afterwards. Whoever reaches its address may do anything there."""
    folder = tempfile.mkdtemp(prefix="postgres-")
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder, port or free_port(), address)
    try:
        server.run("initdb", "--auth=trust", "--username=cohobate", "--no-sync", "--pgdata", f"{folder}/data")
        with Path(folder, "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")  # what it would write down by then is deleted below
    finally:
        shutil.rmtree(folder)
