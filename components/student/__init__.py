"""The student as it is served: card, features, and the ONNX runtime. Imports no torch."""
