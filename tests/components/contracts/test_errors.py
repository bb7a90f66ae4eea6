import inspect
import pickle

import pytest

from components.contracts import errors


def tree(cls):
    return {cls.__name__} | {name for child in cls.__subclasses__() for name in tree(child)}


def test_every_error_of_the_module_is_in_the_tree_and_in_its_drawing():
    defined = {
        name for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
    }
    assert defined <= tree(errors.CohobateError)
    assert all(name in (errors.__doc__ or "") for name in defined)


def test_errors_carry_their_data_and_a_remedy():
    error = errors.LedgerError(7, "was changed")
    assert error.seq == 7
    assert "restore" in str(error)
    refused = errors.ProvenanceError("i1", "t@1", "s@2")
    assert (refused.declared, refused.found) == ("t@1", "s@2")
    assert "declare the new digest" in str(refused)
    wrong = errors.TransitionError("promote", "idle", ())
    assert "legal now are none" in str(wrong)


FIELDS = {"str": "said", "int": 3, "float": 0.5, "float | None": None, "object": 7, "tuple[str, ...]": ("start",)}
FIELDS |= {"tuple[object, ...]": ("payload",), "Mapping[str, int]": {"topics": 1}}


def kinds(cls):
    return [cls, *(kind for child in cls.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", [k for k in kinds(errors.CohobateError)[1:] if k.__module__ == errors.__name__])
def test_an_error_is_the_same_in_another_process(kind):
    wanted = inspect.signature(kind).parameters.values()
    error = kind(*(FIELDS[p.annotation] for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)
