"""The main job: from text on this machine to a guarded chat endpoint and an ONNX artefact, with a report."""
