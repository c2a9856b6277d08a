"""The conformance classes as pytest collects them for `fulmen conform`: the subject is the one on the command line."""
