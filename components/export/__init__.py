"""Exports: bundles that answer from raw input as the judged artefact does, without Cohobate."""

TARGETS = {
    "onnx": "onnx:Onnx",
    "mlflow": "mlflow:Mlflow",
    "openvino": "openvino:Openvino",
    "litert": "litert:LiteRt",
    "triton": "triton:Triton",
    "kserve": "server:KServe",
    "sagemaker": "server:SageMaker",
    "vertex": "server:Vertex",
    "huggingface": "huggingface:HuggingFace",
    "bentoml": "bentoml:BentoMl",
    "tensorrt": "tensorrt:TensorRt",
}
"""Module of :mod:`components.export.targets` and class, by the name that ``--to`` knows a target by."""
