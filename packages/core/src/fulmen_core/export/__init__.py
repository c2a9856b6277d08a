"""What every exporter shares: the options, the artefact's manifest and card, and the proof that it computes the model.

`manifest`, `comparison` and `verdict` need no torch, so that an artefact can be checked where it is deployed.
"""
