"""A labeler's resident memory over 200,000 inputs with a teacher that takes no time, on the embedded broker.

The labeler runs in a process of its own, so that the figure is its own.
"""

import subprocess
import sys
import time

import psutil

from components.contracts.settings import Settings
from components.label.labeler import Labeler
from components.stream import open_broker
from tests.bench._brokers import running
from tests.bench._teachers import Trivial, at_work, publish, spec_of, until

INPUTS = 200_000
CHUNK = 10_000
REMEMBER = 20_000


def main() -> None:
    with running("embedded") as (address, broker):
        spec = spec_of("memory", batch=256, linger_seconds=0.02, remember=REMEMBER)
        broker.ensure_topics(spec.topics)
        child = subprocess.Popen([sys.executable, "-m", "tests.bench.labeler_memory", address], stdout=subprocess.PIPE)
        try:
            marks = []
            for first in range(0, INPUTS, CHUNK):
                publish(broker, spec, first, CHUNK)
                child.stdout.readline()
                marks.append(psutil.Process(child.pid).memory_info().rss / 2**20)
                print(f"  {first + CHUNK:7d} inputs  {marks[-1]:7.1f} MiB", flush=True)
        finally:
            child.terminate()
            child.wait()
    warm, end = marks[3], max(marks[4:])
    print(f"after {4 * CHUNK} inputs {warm:.1f} MiB, most afterwards {end:.1f} MiB: growth {end - warm:+.1f} MiB")


def label(address: str) -> None:
    spec = spec_of("memory", batch=256, linger_seconds=0.02, remember=REMEMBER)
    labeler = Labeler(spec, Trivial(), open_broker(Settings(bootstrap_servers=address)))
    with at_work(labeler):
        for done in range(CHUNK, INPUTS + 1, CHUNK):
            until([labeler], done)
            print(done, flush=True)
        time.sleep(60)


if __name__ == "__main__":
    label(sys.argv[1])
