"""What the server counts, as Prometheus metrics. Names end in their unit; times are in seconds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fulmen_serving.engine.report import CacheUse

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_STEP_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class BusyFraction:
    """Share of the engine's recent working time that the model had: 1 means that nothing but the model takes time.

    Waiting without work does not count. Over the last `steps` steps.
    """

    def __init__(self, steps: int = 256) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=steps)
        self._lock = threading.Lock()

    def add(self, model_seconds: float, cycle_seconds: float) -> None:
        """A step took `cycle_seconds`, `model_seconds` of them in the model."""
        with self._lock:
            self._steps.append((model_seconds, cycle_seconds))

    def value(self) -> float:
        """The fraction, 0 before the first step."""
        with self._lock:
            cycles = sum(cycle for _, cycle in self._steps)
            return sum(model for model, _ in self._steps) / cycles if cycles else 0.0


class ServingMetrics:
    """The metrics of one server, in a registry of its own, so that several servers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.busy = BusyFraction()
        here = self.registry
        self.requests = Counter(
            "fulmen_requests",
            "Requests ended, by how: stop, length, content_filter, embedded, abort, error.",
            ["end"],
            registry=here,
        )
        self.refusals = Counter("fulmen_refusals", "Requests refused, by HTTP status.", ["status"], registry=here)
        self.prompt_tokens = Counter("fulmen_prompt_tokens", "Prompt tokens of admitted answers.", registry=here)
        self.generated_tokens = Counter("fulmen_generated_tokens", "Tokens generated.", registry=here)
        self.running = Gauge("fulmen_running_requests", "Requests that have a slot.", registry=here)
        self.queued = Gauge("fulmen_queued_requests", "Requests that wait for a slot.", registry=here)
        self.queued_tokens = Gauge(
            "fulmen_queued_prompt_tokens", "Prompt tokens of requests that wait for a slot.", registry=here
        )
        self.step_tokens = Counter(
            "fulmen_step_tokens", "Tokens computed by the model, prompts included.", registry=here
        )
        self.reused_tokens = Counter(
            "fulmen_reused_prompt_tokens", "Prompt tokens that were found computed.", registry=here
        )
        self.guessed_tokens = Counter("fulmen_guessed_tokens", "Tokens that speculation guessed.", registry=here)
        self.confirmed_tokens = Counter("fulmen_confirmed_tokens", "Guessed tokens that stood.", registry=here)
        self.preemptions = Counter(
            "fulmen_preemptions", "Times that a request lost its slot to another.", registry=here
        )
        self.cache = CacheUse()  # of the last step
        self._show_cache("kv_pages", "Pages of the full caches.", lambda use: use.pages)
        self._show_cache("kv_used_pages", "Pages that hold what runs or what is kept.", lambda use: use.used_pages)
        self._show_cache("kept_prefixes", "Prefixes kept for requests to come.", lambda use: use.kept_prefixes)
        self._show_cache("kept_prefix_evictions", "Kept prefixes dropped for want of room.", lambda use: use.evictions)
        self._show_cache("loaded_adapters", "LoRA adapters that are loaded.", lambda use: use.adapters)
        self.step_seconds = Histogram(
            "fulmen_step_seconds", "Time of the model in one step.", buckets=_STEP_SECONDS, registry=here
        )
        self.first_token_seconds = Histogram(
            "fulmen_time_to_first_token_seconds", "From admission to the first token.", buckets=_SECONDS, registry=here
        )
        self.request_seconds = Histogram(
            "fulmen_request_seconds", "From admission to the end of the answer.", buckets=_SECONDS, registry=here
        )
        self.model_restarts = Counter(
            "fulmen_model_restarts", "Times that the model process died and was started again.", registry=here
        )
        self.tool_calls = Counter(
            "fulmen_tool_calls",
            "Calls of tools that the server runs, by how they ended: ok, error, withheld.",
            ["tool", "status"],
            registry=here,
        )
        busy = Gauge("fulmen_model_busy_fraction", "Share of recent working time spent in the model.", registry=here)
        busy.set_function(self.busy.value)

    def _show_cache(self, name: str, meaning: str, value: Callable[[CacheUse], int]) -> None:
        gauge = Gauge(f"fulmen_{name}", meaning, registry=self.registry)
        gauge.set_function(lambda: value(self.cache))

    def render(self) -> bytes:
        """Return the Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)
