from components.distill.artifact import allowed, weights_uri
from components.student.parity import Parity


def test_serves_the_float_model_where_the_quantised_one_differs_too_much():
    found = Parity(gap=0.03, largest=0.2, variation=0.01, most_variation=0.2)
    assert not allowed(found, 0.02) and allowed(found, 0.03) and allowed(found, None)
    assert not allowed(None, None)


def test_the_weights_lie_beside_the_artifact():
    assert weights_uri("s3://b/students/abc/model.onnx") == "s3://b/students/abc/student.safetensors"
