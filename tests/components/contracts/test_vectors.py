import math

import pytest

from components.contracts.records import SoftLabel, vector_text
from components.contracts.vectors import FARTHEST, WITHIN, apart, distance, near, text_distance


def soft(vector, scale=0.1):
    return SoftLabel(task="embedding", space="s@1", vector=vector, scale=scale)


def test_the_distance_is_of_directions_alone():
    assert distance((1.0, 0.0), (5.0, 0.0)) == 0.0
    assert distance((1.0, 0.0), (0.0, 3.0)) == pytest.approx(1.0)
    assert distance((1.0, 0.0), (-2.0, 0.0)) == FARTHEST


def test_vectors_of_two_spaces_are_as_far_apart_as_can_be():
    assert distance((1.0, 0.0), (1.0, 0.0, 0.0)) == FARTHEST
    assert not near(vector_text((1.0,)), vector_text((1.0, 0.0)), 0.5)


def test_texts_tell_the_distance_to_the_precision_of_float16():
    a, b = (0.3, -0.2, 0.9), (0.4, -0.1, 0.8)
    assert text_distance(vector_text(a), vector_text(b)) == pytest.approx(distance(a, b), abs=1e-3)
    assert text_distance(vector_text(a), vector_text(a)) < 1e-6


@pytest.mark.parametrize(("share", "agrees"), [(0.9, True), (1.1, False)])
def test_an_answer_agrees_within_three_expected_distances(share, agrees):
    angle = math.acos(1.0 - share * WITHIN * 0.1)
    said, taught = vector_text((math.cos(angle), math.sin(angle))), vector_text((1.0, 0.0))
    assert near(said, taught, 0.1) is agrees


def test_how_far_apart_two_answers_are_is_in_what_the_first_expects():
    assert apart(soft((1.0, 0.0), 0.5), soft((0.0, 1.0), 0.1)) == pytest.approx(2.0)
