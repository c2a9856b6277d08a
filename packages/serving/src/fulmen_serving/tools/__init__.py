"""Tools that the server runs for its model: made of plugins, called in bounds, their results judged before use.

In: the registry's tools, a model's calls. Out: results for the model, events for the client.
May import: fulmen_core, jsonschema, and from serving the service and its events.
"""
