"""Inference with the installed package: registration, the pipeline with a gate, streaming, ONNX, provenance."""
