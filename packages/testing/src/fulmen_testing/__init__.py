"""Conformance kit: the claims that every backend and every detector must meet, as classes of pytest tests.

In: the name of a plugin, or a test class with one fixture. Out: a scorecard, or a pytest run.
May import: fulmen_core, fulmen_safety (for detectors), pytest. Never a backend or a plugin by name.

A backend author's whole test file:

```python
class TestAcme(BackendConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject.of_module("acme", "acme_fulmen_backend.plugin")
```
"""
