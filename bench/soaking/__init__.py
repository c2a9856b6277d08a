"""Parts of `bench/soak.py`: what is asked, how an answer is taken, and what the server's processes hold meanwhile.

In: a server's URL and process id. Out: answers to compare, figures. May import: httpx, numpy, the standard library.
"""
