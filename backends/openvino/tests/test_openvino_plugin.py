"""What the distribution registers, with OpenVINO there or not: nothing heavy is imported to say so."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from fulmen_backend_openvino import plugin
from fulmen_core.errors import PluginError
from fulmen_core.registry import Registry


def without(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let the installed distributions seem to be of other versions, or not there."""

    def seeming(name: str) -> str:
        found = versions[name] if name in versions else version(name)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr("importlib.metadata.version", seeming)


def test_probing_imports_nothing_heavy() -> None:
    program = """
import sys
from fulmen_backend_openvino import plugin
plugin.probe_runtime(), plugin.probe_export(), plugin.fulmen_backends(), plugin.fulmen_exporters()
print(sorted({"torch", "numpy", "openvino"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("found", "said"), [(None, "OpenVINO is not installed"), ("2025.4.1", "OpenVINO 2025.4.1 is not 2026.4")]
)
def test_a_missing_or_other_openvino_is_unavailable_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, found: str | None, said: str
) -> None:
    without(monkeypatch, openvino=found)
    for availability in (plugin.probe_runtime(), plugin.probe_export()):
        assert not availability.ok
        assert said in availability.reason
        assert "pip install 'fulmen-backend-openvino[cpu]'" in availability.reason
    registry = Registry.of("fulmen_backend_openvino.plugin")
    with pytest.raises(PluginError, match=said):
        registry.backend("openvino")


def test_serving_needs_no_torch_but_exporting_does(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, torch=None, openvino="2026.4.1-123")
    assert plugin.probe_runtime().ok
    availability = plugin.probe_export()
    assert not availability.ok
    assert "torch not installed: pip install 'fulmen-backend-openvino[export]'" in availability.reason
