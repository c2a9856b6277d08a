"""Command-line verbs of the trainer: each module parses its arguments, loads its recipe and calls one stage."""
