"""The acceptance test of GB/T 45654-2025 (from TC260-003): draw, ask, judge three ways, and write the evidence.

In: banks of questions, a corpus, a keyword list, a system to ask. Out: an evidence folder. May import:
`fulmen_safety`, its `evaluation`.
"""
