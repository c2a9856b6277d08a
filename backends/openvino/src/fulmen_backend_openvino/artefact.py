"""The format that the exporter writes and the backend loads. Imports nothing."""

FORMAT = "openvino"
#: As optimum-intel calls them: the graph, and its weights beside it.
GRAPH_FILE, WEIGHTS_FILE = "openvino_model.xml", "openvino_model.bin"
