"""Exports models to ONNX and serves the artefact with ONNX Runtime."""
