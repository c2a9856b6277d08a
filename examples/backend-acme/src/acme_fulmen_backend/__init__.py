"""The backend `acme` of Fulmen: a plugin module, a backend, and a runner."""
