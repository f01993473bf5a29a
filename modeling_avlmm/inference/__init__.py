"""Scoring that needs the installed package: the gate, streaming, ONNX, and a detector's identity."""
