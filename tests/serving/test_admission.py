import pytest

from components.contracts.errors import ArtifactError
from components.contracts.storage import put_bytes
from serving.admission import admit


def test_a_good_artifact_is_admitted(spec, model):
    admit(model("1"), spec.source)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"workload": "other"}, "workload 'other'"), ({"rows": 1}, "refused on trial")],
)
def test_a_bad_one_is_refused_with_the_reason(spec, model, options, why):
    with pytest.raises(ArtifactError, match=why):
        admit(model("1", **options), spec.source)


def test_what_was_changed_after_registration_is_refused(spec, model):
    ref = model("1")
    put_bytes(ref.uri, b"something else")
    with pytest.raises(ArtifactError, match="digest"):
        admit(ref, spec.source)


def test_one_that_hangs_is_given_up(spec, model):
    with pytest.raises(ArtifactError, match="did not load within"):
        admit(model("1"), spec.source, seconds=0.05)
