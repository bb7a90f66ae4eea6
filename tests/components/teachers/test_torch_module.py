import shutil

import pytest

from components.contracts.errors import ArtifactError, ConfigError, TeacherError
from components.teachers.torch_module import TransformersTeacher

TEXTS = ["win money !", "the kernel patch a a a a a a", "a", ""]


@pytest.fixture
def copy(transformer, tmp_path):
    return shutil.copytree(transformer, tmp_path / "tiny-bert")


def test_soft_labels_are_the_models_softmax(transformer):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(transformer)
    model = AutoModelForSequenceClassification.from_pretrained(transformer).eval()
    teacher = TransformersTeacher(str(transformer), "mail@1", batch=3)
    assert (teacher.name, teacher.classes) == ("tiny-bert", ("ham", "spam")) and teacher.size_bytes > 1_000
    for text, soft in zip(TEXTS, teacher.label(TEXTS), strict=True):
        with torch.inference_mode():
            (right,) = model(**tokenizer([text], return_tensors="pt")).logits.softmax(-1).tolist()
        assert [soft.distribution[c] for c in teacher.classes] == pytest.approx(right, abs=1e-5)
    assert teacher.label([]) == []


def test_the_digest_covers_weights_tokenizer_and_options(transformer, copy):
    first = TransformersTeacher(str(transformer), "mail@1").digest
    assert TransformersTeacher(str(copy), "mail@1", batch=1, threads=2).digest == first
    (copy / "README.md").write_text("other words")
    assert TransformersTeacher(str(copy), "mail@1").digest == first
    found = {
        first, TransformersTeacher(str(copy), "mail@2").digest,
        TransformersTeacher(str(copy), "mail@1", max_tokens=8).digest,
        TransformersTeacher(str(copy), "mail@1", ["no", "yes"]).digest,
    }  # fmt: skip
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("money", "moneys"))
    found.add(TransformersTeacher(str(copy), "mail@1").digest)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    found.add(TransformersTeacher(str(copy), "mail@1").digest)
    assert len(found) == 6


def test_folders_that_hold_no_model(tmp_path, copy):
    with pytest.raises(ArtifactError, match="save_pretrained"):
        TransformersTeacher(str(tmp_path), "mail@1")
    (copy / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="can be loaded"):
        TransformersTeacher(str(copy), "mail@1")


def test_a_pickle_is_not_loaded(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="safetensors"):
        TransformersTeacher(str(copy), "mail@1")


@pytest.mark.parametrize("options", [{"classes": ["a"]}, {"classes": ["a", "a"]}, {"batch": 0}, {"max_tokens": 1}])
def test_options_that_are_refused(transformer, options):
    with pytest.raises(ConfigError):
        TransformersTeacher(str(transformer), "mail@1", **options)


def test_what_is_no_text_and_what_pytorch_refuses(transformer):
    teacher = TransformersTeacher(str(transformer), "mail@1", max_tokens=512)
    with pytest.raises(TeacherError, match=r"payload\.decoder to text"):
        teacher.label([b"bytes"])
    with pytest.raises(TeacherError, match="PyTorch failed"):
        teacher.label(["a " * 300])


def test_a_device_that_is_not_there(transformer):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match="device is 'cuda': cannot be used here"):
        TransformersTeacher(str(transformer), "mail@1", device="cuda")


def test_cuda_agrees_with_the_cpu(transformer):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    on_cpu = TransformersTeacher(str(transformer), "mail@1")
    on_gpu = TransformersTeacher(str(transformer), "mail@1", device="cuda")
    assert on_gpu.digest == on_cpu.digest
    for a, b in zip(on_cpu.label(TEXTS), on_gpu.label(TEXTS), strict=True):
        assert a.distribution["ham"] == pytest.approx(b.distribution["ham"], abs=1e-3)
