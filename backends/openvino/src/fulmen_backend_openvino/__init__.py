"""Exports models to OpenVINO IR and serves the artefact with OpenVINO."""
