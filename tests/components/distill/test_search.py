from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from components.contracts.errors import ConfigError
from components.contracts.records import content_hash
from components.contracts.spec import Variant
from components.contracts.spec.objective import Kl, Truth
from components.distill.data import NO_TRUTH, TrainingSet, arrays, window_rows
from components.distill.networks.contract import network
from components.distill.search import score, search
from components.distill.train import distill
from components.distill.work import Work

RECIPES = {
    "soft": (Kl(),),
    "truth": (Truth(),),
    "margin": (Kl(weight=0.5), Truth(weight=0.5)),
    "cold": (Kl(temperature=1.0),),
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return f"file://{tmp_path_factory.mktemp('search')}"


@pytest.fixture(scope="module")
def misled(letter_spec, letters, freeze_rows, artifacts):
    """A window whose teacher mistakes the letters and whose truth is right, or the other way round."""

    def make(right):
        swap = {"a": "b", "b": "a"}
        rows = []
        for payload, soft, truth in letters("ab", 200):
            wrong = msgspec.structs.replace(
                soft, distribution={swap.get(k, k): p for k, p in soft.distribution.items()}
            )
            rows.append((payload, wrong, truth) if right == "truth" else (payload, soft, None))
        return freeze_rows(letter_spec, rows, artifacts, 1)

    return make


def spec_of(letter_spec, **values):
    student = msgspec.structs.replace(letter_spec.student, recipes=RECIPES, search=tuple(RECIPES), **values)
    return msgspec.structs.replace(letter_spec, student=student)


def test_the_recipe_that_answers_best_is_taken_and_stands_on_the_card(letter_spec, misled, artifacts):
    done = distill(
        spec_of(letter_spec), [misled("truth")], variant=letter_spec.student.variants[0], parent=None,
        artifacts=artifacts, seed=0,
    )  # fmt: skip
    assert done.card.recipe == "truth" and done.metrics["search_truth"] > 0.9
    assert done.metrics["searched_margin"] == pytest.approx(
        done.metrics["search_truth"] - max(v for k, v in done.metrics.items() if k in SEARCHED - {"search_truth"})
    )
    assert 40 <= done.metrics["searched_rows"] < 0.4 * done.metrics["new_rows"]


SEARCHED = {f"search_{name}" for name in RECIPES}


def test_a_variant_with_a_recipe_of_its_own_searches_nothing(letter_spec, misled, artifacts):
    own = Variant(name="tiny", dim=8, hidden=16, recipe="cold")
    done = distill(
        spec_of(letter_spec, variants=(own,)),
        [misled("teacher")],
        variant=own,
        parent=None,
        artifacts=artifacts,
        seed=0,
    )
    assert done.card.recipe == "cold" and "searched_rows" not in done.metrics


@pytest.fixture
def work(letter_spec, misled, card):
    rows = window_rows(misled("teacher"), "train", "classification", "t@1")
    data = arrays(letter_spec, rows, ("a", "b"))
    card = msgspec.structs.replace(card, classes=("a", "b"))
    made = Work(spec=letter_spec, card=card, data=data, objective=(Kl(),), epochs=8, start=None, checkpoint="", seed=0)
    return made, [content_hash(p) for p in rows.payloads]


def test_halving_gives_fewer_and_fewer_recipes_more_and_more_epochs(work, monkeypatch):
    made, contents = work
    worth = {"soft": 0.6, "truth": 0.9, "margin": 0.8, "cold": 0.7}
    tried = []
    monkeypatch.setattr("components.distill.search.score", lambda net, data, task: worth[net])

    def train(arm, name):
        recipe = name.split("-")[1]
        tried.append((recipe, arm.epochs, len(arm.data)))
        return recipe

    found = search(made, RECIPES, contents, train)
    assert [(n, e) for n, e, _ in tried] == [(n, 2) for n in RECIPES] + [("truth", 8), ("margin", 8)]
    assert (
        found.recipe == "truth" and found.margin == pytest.approx(0.1) and found.scores == {"truth": 0.9, "margin": 0.8}
    )
    assert {rows for _, _, rows in tried} == {len(made.data) - found.rows}


def test_too_few_rows_decide_nothing(work):
    made, contents = work
    few = np.arange(len(made.data)) < 60
    found = search(replace(made, data=made.data.take(few)), RECIPES, contents[:60], lambda *_: pytest.fail("trained"))
    assert found.recipe == "soft" and found.scores == {} and found.margin is None


def test_one_recipe_is_no_choice(work):
    made, contents = work
    with pytest.raises(ConfigError, match="two recipes"):
        search(made, {"soft": (Kl(),)}, contents, lambda *_: None)


def test_truth_counts_where_it_is_known_else_the_teacher(card, work):
    made, _ = work
    net = network(made.card)
    data = made.data
    said = score(net, data, "classification")
    turned = replace(data, truth=1 - data.soft.argmax(axis=1))
    assert score(net, replace(data, truth=np.full(len(data), NO_TRUTH)), "classification") == pytest.approx(said)
    assert score(net, turned, "classification") == pytest.approx(1 - said)
    with pytest.raises(ValueError, match="judge nothing"):
        score(net, TrainingSet(features=data.features, soft=None, truth=None), "classification")


def test_sets_are_right_where_every_class_is():
    class Says(torch.nn.Module):
        def forward(self, x):
            return x

    out = np.array([[3.0, -1.0], [3.0, 1.0], [-2.0, -2.0], [1.0, -1.0]], dtype=np.float32)
    soft = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.4], [0.1, 0.1]], dtype=np.float32)
    truth = np.array([[np.nan] * 2, [1, 1], [np.nan] * 2, [np.nan] * 2], dtype=np.float32)
    assert score(Says(), TrainingSet(features={"x": out}, soft=soft, truth=truth), "multilabel") == 0.75
