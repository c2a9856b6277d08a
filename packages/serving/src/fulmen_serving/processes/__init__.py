"""Child processes: started so that they cannot outlive us, settled in, started again when they die.

In: a module to run and sockets to speak over. Out: a process. May import: fulmen_core; never HTTP, never a backend.
"""
