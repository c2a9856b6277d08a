"""The format that the exporter writes and the backend loads: the names of its file and of its graph's values."""

FORMAT = "onnx"
GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"

#: Input, int64 [1]: of how many last tokens of each sequence results are wanted; 0 or not given: all.
WANTED = "logits_to_keep"
#: Output: the hidden states of those tokens after the final norm.
HIDDEN = "hidden_states"
