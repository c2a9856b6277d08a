"""Training and serving on NVIDIA GPUs with PyTorch.

In: a `Transformer` to train, or a model directory to serve. Out: a train program, or a runner. It imports core alone;
importing the package imports no torch, and no module starts CUDA before a device is used.
"""
