import importlib.util
import itertools
import random
import sys

import pytest

from components.contracts.payload import decoder
from components.contracts.spec import Factory, Payload
from components.export.manifest import Defer
from components.export.targets.contract import Version
from components.student.card import StudentCard
from components.student.features import featuriser
from components.student.runtime import NOVELTY
from drift.novelty import Nearness

CLASSES = ("ham", "news", "spam")
WORDS = [
    "prize",
    "money",
    "meeting",
    "agenda",
    "offer",
    "lunch",
    "invoice",
    "winner",
    "travel",
    "weather",
    "böse",
    "雨",
]
SCORES = (tuple(float(n) for n in range(40)), tuple(n / 3 for n in range(25)))

TEXT = [" ".join(random.Random(n).choices(WORDS, k=3 + n % 9)).encode() for n in range(90)]
ROWS = [
    b'{"x": %d, "y": %s, "kind": "%s"}' % (n, b"null" if n % 7 == 0 else b"1.5", b"ab"[n % 2 :][:1]) for n in range(60)
]
BYTES = [random.Random(n).randbytes(10 + n) for n in range(60)]

TAGGED = [*TEXT, b" \n", "a 🙂b".encode()]
TAGS = ("O", "B-PER", "I-PER", "LOC")

FEATURES = {
    "TextNgrams": ("components.student.text:TextNgrams", {"buckets": 2048}, "text", TEXT),
    "TaggedWords": ("components.student.tagging:TaggedWords", {"buckets": 512}, "text", TAGGED),
    "WordSequence": ("components.student.words:WordSequence", {"buckets": 512, "length": 16}, "text", TEXT),
    "ByteNgrams": ("components.student.bytes:ByteNgrams", {"buckets": 2048}, "raw", BYTES),
    "TableColumns": (
        "components.student.table:TableColumns",
        {"columns": [{"name": "x", "mean": 30.0, "scale": 20.0}, {"name": "y"}]},
        "json", ROWS,
    ),
    "MixedColumns": (
        "components.student.columns:MixedColumns",
        {"numbers": [{"name": "x", "mean": 30.0, "scale": 20.0}, {"name": "y"}],
         "categories": [{"name": "kind", "values": ["a", "b"]}]},
        "json", ROWS,
    ),
}  # fmt: skip

BAG = ("components.distill.networks.bag:BagOfFeatures", {"dim": 8, "hidden": 16})
NETWORKS = {
    "TaggedWords": ("components.distill.networks.tagger:Tagger", {"dim": 8, "layers": 2}),
    "WordSequence": ("components.distill.networks.text_convolution:TextConvolution", {"dim": 8, "filters": 8}),
    "MixedColumns": ("components.distill.networks.table:TableNetwork", {"dim": 4, "hidden": [16, 8]}),
}


TASKS = {"TaggedWords": "tagging"}


def exported(reading, network=None, *, task="", defer=None, temperature=0.05, made_of=None):
    """A version of a student with the weights that it begins with, which tells novelty and is sure of itself."""
    import torch

    from components.distill.export import body, to_int8, to_onnx
    from components.distill.networks.contract import network as make
    from components.distill.novelty import states

    factory, options, decode, payloads = made_of or FEATURES[reading]
    features, net = Factory(factory=factory, options=options), network or NETWORKS.get(reading, BAG)
    made, task = featuriser(features), task or TASKS.get(reading, "classification")
    classes = {"regression": (), "embedding": (), "tagging": TAGS}.get(task, CLASSES)
    card = StudentCard(
        workload="letters", task=task, space="letters@1", classes=classes,
        features=features, payload=Payload(decoder=decode, max_bytes=4000), inputs=dict(made.signature),
        network=Factory(factory=net[0], options=net[1]), variant="tiny", snapshots=("0" * 64,), teacher="t@1",
        parent=None, code="0", novelty=SCORES, dimension=6 if task == "embedding" else 0,
    )  # fmt: skip
    torch.manual_seed(0)
    graph = body(make(card, ""), card.inputs, getattr(made, "files", {}))
    rows = made.encode([decoder(card.payload)(p) for p in payloads])
    known = Nearness.fit(states(graph, rows), [n % 3 for n in range(len(payloads))])
    full = to_onnx(graph, card, temperature, known=known)
    assert NOVELTY.encode() in full
    version = Version(
        workload="letters", version="3", artefact=full, source="", lineage={"workload": "letters", "version": "3"},
        defer=defer or Defer(below=0.5, novelty=0.2, known=SCORES),
        full=lambda: full, calibration=lambda: payloads,
    )  # fmt: skip
    return version, payloads, to_int8(full, graph, card, rows)


@pytest.fixture(scope="module", autouse=True)
def no_byte_code():
    """Bundles are used as ``python -B`` uses them: what is beside the manifest's files is not trusted.

    Not for the session: tests of other folders would be run so too, or not, as their order has it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        yield


_names = (f"bundle_{n}" for n in itertools.count())


def package_of(folder):
    """The package in a bundle, under a name that no other has."""
    name = next(_names)
    place = folder / "cohobate_student"
    found = importlib.util.spec_from_file_location(name, place / "__init__.py", submodule_search_locations=[str(place)])
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def load(folder):
    """The student of a bundle, by its own package."""
    return package_of(folder).load(folder)


@pytest.fixture(scope="session")
def text_student():
    """A bag of n-grams of text, and its inputs."""
    return exported("TextNgrams")[:2]


@pytest.fixture(scope="session")
def vectors():
    """A student that makes vectors, and its inputs."""
    return exported("TextNgrams", task="embedding", temperature=1.5)[:2]


@pytest.fixture(scope="session")
def tagger():
    """A student that tags words, and its inputs."""
    return exported("TaggedWords")[:2]
