"""The main job: from text that every machine has to a guarded chat endpoint, an ONNX artefact and a report of it all.

In: a recipe and a run directory. Out: `summary.json`, `report.html`, a model directory and an artefact directory.
May import: fulmen_core, fulmen_trainer; all else it reaches through the registry or over HTTP, as a user would.
"""
