"""Distillation: warm start, replay, soft labels mixed with truth, Ray Train, and the export to ONNX."""
