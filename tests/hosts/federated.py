"""What a site of a federation, or who mixes, does on its host beside the commands: ``python -m tests.hosts.federated``.

The platform of each is its own: its home, its registry, its ledger, its keys. What goes from one to another goes
through an object store.
"""

import contextlib
import json
import random
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from components.contracts.attestation import verifier
from components.contracts.records import Input, Label, Truth, encode, label_key
from components.contracts.settings import Settings
from components.contracts.spec import build, load_spec
from components.contracts.storage import files, get_bytes, put_bytes
from components.control.intent import Intent
from components.control.store import ControlStore
from components.distill.step import distil
from components.evaluate.step import judge
from components.federation import exchange
from components.registry.registry import Registry
from components.registry.step import register
from components.snapshot import freeze
from components.steps import NOTHING
from components.stream.memory import MemoryBroker
from components.student.runtime import Student
from components.teachers.contract import reference
from tests.keys import keys

LETTERS = {"a": "abcde", "b": "fghij", "c": "klmno"}

SPEC = """
name: letters
teacher: {teacher}
teacher_space: letters@1
features: {{factory: "components.student.bytes:ByteNgrams", options: {{head: 64, buckets: 1024}}}}
student:
  variants: [{{name: tiny, dim: 8, hidden: 16}}]
  epochs: 12
  batch_size: 16
  learning_rate: 0.02{start}
limits: {{min_rows: 10, min_accuracy: 0.8, min_agreement: 0.8, max_loss: 0.1}}
"""

OWN = '{{factory: "user.py:Sure", options: {{known: "{}"}}}}'

TEACHER = """
from components.contracts.records import SoftLabel

LETTERS = {"a": "abcde", "b": "fghij", "c": "klmno"}


class Sure:
    name, digest, task, space, size_bytes = "sure", "1", "classification", "letters@1", 0

    def __init__(self, known):
        self.classes = tuple(known)

    def label(self, payloads):
        counts = [[sum(chr(b) in LETTERS[c] for b in payload) for c in self.classes] for payload in payloads]
        shares = [[(n + 1) / (sum(row) + len(row)) for n in row] for row in counts]
        return [SoftLabel.of(self.space, self.classes, row) for row in shares]
"""


def texts(seed, count, known="abc"):
    """Texts of which only a class of letters can be told, and the class."""
    chance = random.Random(seed)
    return [("".join(chance.choices(LETTERS[c], k=40)), c) for c in chance.choices(known, k=count)]


def learn(folder, spec_text, rows):
    """Label rows of (text, truth), freeze them, and make, judge and register a student; its version."""
    path = Path(folder) / "letters.yaml"
    path.write_text(spec_text)
    path.with_name("user.py").write_text(TEACHER)
    settings, spec, broker = Settings(), load_spec(path), MemoryBroker()
    taught = build(spec.teacher, spec.source)
    teacher, softs = reference(taught), taught.label([text.encode() for text, _ in rows])
    settings.home.mkdir(parents=True, exist_ok=True)
    broker.ensure_topics(spec.topics, spec.partitions)
    with (
        contextlib.closing(ControlStore(settings.control_url)) as store,
        contextlib.closing(Registry(settings)) as known,
    ):
        store.migrate()
        at = time.time() - len(rows) - 1
        with contextlib.closing(broker.producer()) as producer:
            for i, ((text, truth), soft) in enumerate(zip(rows, softs, strict=True)):
                entry = Input(workload="letters", id=f"{at}-{i}", key=f"k{i}", time=at + i, payload=text.encode())
                label = Label(key=label_key(entry, teacher, soft.space), teacher=teacher, soft=soft, input=entry,
                              labelled_at=at + i)  # fmt: skip
                told = Truth(workload="letters", input_id=entry.id, time=at + i, known_at=at + i, source="person",
                             label=truth)  # fmt: skip
                producer.send(spec.topic("labels"), entry.key, encode(label))
                producer.send(spec.topic("truth"), entry.id, encode(told))
        freeze(spec, broker, store, settings.artifacts, now=time.time())
        made = judge(spec.source, distil(spec.source, "tiny", True, NOTHING))
        version = register(spec.source, made)
        store.put_intent("letters", store.intent("letters")[0], Intent(champion=known.get("letters", version)))
        known.set_alias("letters", "champion", version)
    return {"version": version, "decision": made.decision, "parent": made.card.parent}


def site(folder, seed, known):
    """A site: its keys, and a student of inputs of its own, of the classes that it sees."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keys(folder, "site")
    return learn(folder, SPEC.format(teacher=OWN.format(known), start=""), texts(seed, 240, known))


def turned(folder, file):
    """A byzantine site: what its student answered, each class called the next, under its own signature."""
    path = Path(file)
    found = exchange.read(path.read_bytes(), file, verifier(Path(folder) / "site.pub"), "banks")
    swap = dict(zip("abc", "bca", strict=True))
    wrong = {i: {swap[c]: p for c, p in shares.items()} for i, shares in found.by_id.items()}
    by = CryptoSigner(load_pem_private_key((Path(folder) / "site.pem").read_bytes(), None))
    path.write_bytes(exchange.write(found.said, wrong, by).data)
    return {}


def mixed(folder, mixture, public):
    """Who mixes: a student of the mixture."""
    factory = f'{{factory: "components.teachers.federation:Federation", options: {{mixture: "{mixture}"}}}}'
    truth = dict(texts(0, 300))
    asked = [json.loads(line)["text"] for line in Path(public).read_text().splitlines()]
    return learn(folder, SPEC.format(teacher=factory, start=""), [(text, truth[text]) for text in asked])


def begun(folder, model, digest, seed, known):
    """A site goes on from the student that it was handed: what that, and what came of it, knows of all classes."""
    start = f'\n  start: {{uri: "file://{model}", digest: "{digest}"}}'
    made = learn(folder, SPEC.format(teacher=OWN.format(known), start=start), texts(f"{seed} again", 240, known))
    with contextlib.closing(Registry(Settings())) as known_versions:
        uri = known_versions.info("letters", made["version"]).ref.uri
    return {**made, "given": right(model), "own": right(uri)}


def right(uri):
    """The share of unseen inputs of all classes that a student has right."""
    student, unseen = Student.load(get_bytes(str(uri))), texts(999, 300)
    said = student.predict([t.encode() for t, _ in unseen])
    return sum(s.label == c for s, (_, c) in zip(said, unseen, strict=True)) / len(unseen)


def sent(file, uri):
    """A file goes to the object store."""
    put_bytes(uri, Path(file).read_bytes())
    return {}


def fetched(uri, file):
    """A file comes from the object store, if it is there."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    there = bool(files(uri))
    if there:
        Path(file).write_bytes(get_bytes(uri))
    return {"came": there}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])), flush=True)
