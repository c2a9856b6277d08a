"""How good a guard is: measures with their intervals, labelled files, attacks, the acceptance test.

In: labelled texts and a policy. Out: figures and evidence. May import: all of `fulmen_safety`, NumPy.
"""
