"""The embedded default backend: training and serving on the CPU with PyTorch.

In: models, checkpoints and plans of `fulmen_core`. Out: `TrainProgram` and `Runner`. May import: `fulmen_core` and
torch.
"""
