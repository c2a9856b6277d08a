"""The application for Ray Serve: the replicas' deployment, routed by prefix, behind the ingress."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from fulmen_serving.loading import ServingOptions
from fulmen_serving_ray.ingress import FulmenIngress
from fulmen_serving_ray.replica import FulmenReplica
from fulmen_serving_ray.router import PrefixRouter

#: Beyond what the engine of a replica holds, so that it is the engine that refuses, with a time to come back.
_SPARE_CALLS = 64


def application(
    options: ServingOptions, arguments: Namespace, *, replicas: int, cpus: float, imbalance: int | None = None
) -> Any:
    """Return the application.

    Args:
        options: which model, and how; its directory is on every node.
        arguments: of the command line, for keys, limits and traces.
        replicas: how many.
        cpus: that Ray reserves for each, which is also the number of its threads.
        imbalance: see `PrefixMemory`; None is half of what a replica answers at once.
    """
    holds = options.max_sequences + options.admission.max_waiting
    router = RequestRouterConfig(
        request_router_class=PrefixRouter,
        request_router_kwargs={"imbalance": max(1, options.max_sequences // 2) if imbalance is None else imbalance},
    )
    behind = serve.deployment(
        FulmenReplica,
        name="FulmenReplica",
        num_replicas=replicas,
        max_ongoing_requests=holds + _SPARE_CALLS,
        ray_actor_options={"num_cpus": cpus},
        request_router_config=router,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=arguments.drain_seconds,
    )
    front = serve.deployment(
        FulmenIngress,
        name="FulmenIngress",
        num_replicas=1,  # what went where is known to one ingress only
        max_ongoing_requests=replicas * (holds + _SPARE_CALLS),
        ray_actor_options={"num_cpus": 0},
    )
    return front.bind(behind.bind(options, arguments), arguments.max_body_bytes)
