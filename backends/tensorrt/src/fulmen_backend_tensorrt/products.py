"""The two products with one API: TensorRT-RTX, which builds without a GPU, and TensorRT, which builds on the GPU.

Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True, slots=True)
class Product:
    """One of the two.

    Attributes:
        format: of its artefacts, and the name of its exporter.
        module: to import. distribution: that brings it. extra: of ours that asks for it.
        ahead_of_time: whether it builds for devices that are not there.
    """

    format: str
    title: str
    module: str
    distribution: str
    extra: str
    ahead_of_time: bool

    def installed(self) -> str | None:
        """The version that is installed; nothing is imported."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    @property
    def remedy(self) -> str:
        """What installs it."""
        return f"pip install 'fulmen-backend-tensorrt[{self.extra}]'"


PRODUCTS = {
    product.format: product
    for product in (
        Product("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx", "rtx", True),
        Product("tensorrt", "TensorRT", "tensorrt", "tensorrt", "datacenter", False),
    )
}
