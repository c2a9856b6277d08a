"""The guard in a process of its own: a detector that hangs or crashes takes nothing with it but what it judged.

In: a policy and how plugins were discovered. Out: a `fulmen_core.guard.Guard`. May import: fulmen_core, `processes`.
"""
