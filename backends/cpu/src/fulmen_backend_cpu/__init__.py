"""The embedded default backend: training and serving on the CPU with PyTorch."""
