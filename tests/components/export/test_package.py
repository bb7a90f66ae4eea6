import ast
import base64
import io
import json
import subprocess
import sys
from importlib import metadata, resources

import mmh3
import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from components.contracts.errors import ConfigError
from components.contracts.payload import decoder
from components.contracts.spec import Entity, EntityFeature, Factory, Features, Payload
from components.export.package import BESIDE, NEEDS, given, modules, requirements
from components.export.runtime import murmur3
from components.student.card import StudentCard
from components.student.features import featuriser
from tests.components.export.conftest import FEATURES, TEXT

APART = """
import base64, importlib, importlib.util, json, sys

class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("components", "drift", "serving", "infra", "msgspec", "torch", "onnx"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Closed())
sys.path.insert(0, sys.argv[1])
for name, asked in json.load(sys.stdin).items():
    said, files = asked["given"], {n: base64.b64decode(d) for n, d in asked["files"].items()}
    decode = importlib.import_module(f"{name}.decoders").decoder(said)
    made = getattr(importlib.import_module(f"{name}.{said['featuriser']['module']}"), said["featuriser"]["name"])
    encoder = made(**said["featuriser"]["options"], **({"files": files} if files else {}))
    found = encoder.encode([decode(base64.b64decode(p)) for p in asked["payloads"]])
    arrays = dict(zip(("ids", "weights"), found)) if isinstance(found, tuple) else found
    print(json.dumps({"name": name, "arrays": {n: a.tolist() for n, a in arrays.items()}}))
"""


def png(n):
    made = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(n).integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(made, "PNG")
    return made.getvalue()


def wav(n):
    made = io.BytesIO()
    soundfile.write(made, np.random.default_rng(n).normal(0, 0.1, 4000), 8000, format="WAV")
    return made.getvalue()


def tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {w: n for n, w in enumerate(["[UNK]", "prize", "meeting", "the", "##s", "offer", "train"])}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    path = folder / "tokenizer.json"
    made.save(str(path))
    return str(path)


def card(factory, options, decode):
    features = Features(factory=factory, options=options)
    return StudentCard(
        workload="w", task="regression", space="s", classes=(), features=features, payload=Payload(decoder=decode),
        inputs={}, network=Factory(factory="n:N"), variant="v", snapshots=("0",), teacher="t@1", parent=None, code="0",
    )  # fmt: skip


def test_a_bundle_s_code_makes_the_very_features_of_training_without_cohobate(tmp_path):
    every = {
        **FEATURES,
        "Tokens": (
            "components.student.tokens:Tokens", {"tokenizer": tokenizer(tmp_path), "length": 8}, "text", TEXT[:9],
        ),
        "Image": (
            "components.student.image:Image", {"height": 6, "width": 5}, "components.student.image:image_bytes",
            [png(n) for n in range(4)],
        ),
        "Spectrogram": (
            "components.student.audio:Spectrogram", {"rate": 8000, "seconds": 0.4, "mels": 8},
            "components.student.audio:sound_bytes", [wav(n) for n in range(4)],
        ),
    }  # fmt: skip
    assert {reference.partition(":")[0].rpartition(".")[2] for reference, *_ in every.values()} == BESIDE.keys()
    asked, expected = {}, {}
    for name, (factory, options, decode, payloads) in every.items():
        made, said = featuriser(Factory(factory=factory, options=options)), given(card(factory, options, decode))
        for file, source in modules(said, ()).items():
            place = tmp_path / "packages" / name / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(source)
        (tmp_path / "packages" / name / "__init__.py").write_text("")
        files = {n: base64.b64encode(d).decode() for n, d in getattr(made, "files", {}).items()}
        own = {"module": said.featuriser.module, "name": said.featuriser.name, "options": said.featuriser.options}
        asked[name] = {
            "given": {"decoder": said.decoder, "max_bytes": said.max_bytes, "featuriser": own}, "files": files,
            "payloads": [base64.b64encode(p).decode() for p in payloads],
        }  # fmt: skip
        look = decoder(Payload(decoder=decode))
        expected[name] = {n: a.tolist() for n, a in made.encode([look(p) for p in payloads]).items()}
    done = subprocess.run(
        [sys.executable, "-B", "-I", "-c", APART, str(tmp_path / "packages")], input=json.dumps(asked).encode(),
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found = {line["name"]: line["arrays"] for line in map(json.loads, done.stdout.splitlines())}
    assert found == expected


@pytest.mark.parametrize("module", sorted(BESIDE))
def test_whatever_a_module_imports_is_among_its_needs(module):
    """The imports within its functions too."""
    source = (resources.files("components.student") / f"{module}.py").read_text()
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        found |= {name.partition(".")[0] for name in names}
    found -= {*sys.stdlib_module_names, "components", "drift", "numpy"}
    of = metadata.packages_distributions()
    assert {of[name][0].lower() for name in found} == set(NEEDS.get(module, ()))


def test_what_it_needs_is_named():
    said = given(card("components.student.image:Image", {}, "components.student.audio:sound_bytes"))
    assert requirements(said) == ["pillow", "scipy", "soundfile"]
    assert requirements(given(card("components.student.bytes:ByteNgrams", {}, "raw"))) == []


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "winner takes it", "böse 雨", "x" * 99])
def test_the_hash_of_words_is_that_of_mmh3(text):
    assert murmur3.hash(text) == mmh3.hash(text)
    assert murmur3.hash(text, 7) == mmh3.hash(text, 7)


@pytest.mark.parametrize(
    ("features", "decode", "field"),
    [("mine.py:Own", "raw", "features.factory"), ("components.student.bytes:ByteNgrams", "mine.py:own", "payload")],
)
def test_code_of_one_s_own_is_refused(features, decode, field):
    with pytest.raises(ConfigError, match=rf"{field}.*runs no code of yours"):
        given(card(features, {}, decode))


def test_a_student_that_is_told_of_entities_is_refused():
    made = card("components.student.bytes:ByteNgrams", {}, "raw")
    entity = Entity(features=(EntityFeature(name="seen", of="count", default=0.0, seconds=60.0),))
    features = Features(factory=made.features.factory, entity=entity)
    fed = StudentCard(**{name: getattr(made, name) for name in made.__struct_fields__} | {"features": features})
    with pytest.raises(ConfigError, match=r"features\.entity.*online store"):
        given(fed)
