"""The verb `fulmen raise`: `check` a text, `policy show`, `policy lint`.

In: arguments after the verb. Out: a verdict or a policy on stdout, an exit code. May import: all of `fulmen_safety`.
"""
