"""The format that the exporter writes and the backend loads."""

FORMAT = "onnx"
GRAPH_FILE = "model.onnx"
