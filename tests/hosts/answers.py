"""What clients on a host of their own (:mod:`tests.hosts.clients`) were told."""

import json
from types import SimpleNamespace

from tests.kubelet import SECONDS
from tests.waiting import wait_for


class Answers:
    """What the clients were told; ``folder`` is theirs."""

    def __init__(self, folder):
        self.folder, self._read, self.all = folder, 0, []

    def look(self):
        with (self.folder / "answers").open() as lines:
            lines.seek(self._read)
            for line in iter(lines.readline, ""):
                if not line.endswith("\n"):
                    break
                self._read += len(line)
                began, host, status, told, id_ = json.loads(line)
                self.all.append(SimpleNamespace(began=began, host=host, status=status, told=told, id=id_))
        return self.all

    def failed(self, since=0):
        return [one for one in self.look()[since:] if one.status != 200]

    def more(self, n):
        """Wait until so many more have come."""
        wanted = len(self.look()) + n
        wait_for(lambda: len(self.look()) >= wanted, 3 * SECONDS)
