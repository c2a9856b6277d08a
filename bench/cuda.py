"""`python bench/cuda.py`: what a GPU does in training and decoding. All of it is in `cuda_measurements`; see --help."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # NVIDIA's package, which PyTorch looks for, has the name of this file: let an installed one be found first.
    sys.path.append(sys.path.pop(0))
    from cuda_measurements import main

    sys.exit(main())
