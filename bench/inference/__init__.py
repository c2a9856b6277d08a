"""The parts of `bench/infer_cpu.py`: what is measured, by whom, and what the figures mean.

In: the names of shapes, engines and cells. Out: figures by round, and the report. May import: the standard library
alone, so that the driver itself takes no memory, no threads and no second from what it measures.
"""
