"""Clients on a host of their own, until FOLDER/end is there: ``clients.py FOLDER PATH PAUSE HOST...``.

Two of them ask each HOST (``address:port``) again and again, PAUSE seconds after each answer. One that the file
FOLDER/left names is asked no more, as one whose node is taken out of a Service is. FOLDER/answers gets a line for each
answer: when it was asked for, who, the status (0: the connection broke), the version, or what was wrong, and the id of
the input.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

CLIENTS = 2
SECONDS = 30.0
BODY = {"payload": "IyEvYmluL3NoCg=="}


class Clients:
    """All of them."""

    def __init__(self, folder, path, pause):
        self.folder, self.path, self.pause = folder, path, pause
        self.lock = threading.Lock()
        self.to = (folder / "answers").open("a")

    def told(self, *line):
        with self.lock:
            self.to.write(json.dumps(line) + "\n")
            self.to.flush()

    def run(self, host, number):
        """One of those that ask a host."""
        connection, asked = None, 0
        while not (self.folder / "end").exists():
            left = self.folder / "left"
            if left.exists() and host in left.read_text().split():
                if connection is not None:
                    connection.close()
                    connection = None
                time.sleep(0.05)
                continue
            asked += 1
            id_ = f"{self.folder.name}-{host}-{number}-{asked}"
            body = json.dumps({**BODY, "id": id_, "key": f"k{asked % 997}"})
            began = time.time()
            try:
                if connection is None:
                    address, _, port = host.rpartition(":")
                    connection = http.client.HTTPConnection(address, int(port), timeout=SECONDS)
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                version = json.loads(text)["model_version"] if answer.status == 200 else text.decode()[:300]
                self.told(began, host, answer.status, version, id_)
                time.sleep(self.pause)
            except (TimeoutError, OSError, http.client.HTTPException, ValueError) as error:
                self.told(began, host, 0, repr(error), id_)
                connection.close()
                connection = None
                time.sleep(0.05)


def main(folder, path, pause, *hosts):
    clients = Clients(Path(folder), path, float(pause))
    threads = [threading.Thread(target=clients.run, args=(h, n)) for h in hosts for n in range(CLIENTS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
