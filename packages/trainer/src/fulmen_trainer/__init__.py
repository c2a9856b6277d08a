"""Data pipeline, staged pre-training, supervised fine-tuning, reward model and DPO."""
