"""Ray's request router that sends a prompt where its beginning is known.

Source: https://docs.ray.io/en/latest/serve/advanced-guides/custom-request-router.html.
"""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

from fulmen_serving_ray.prefix_memory import Prefix, PrefixMemory


class PrefixRouter(RequestRouter):
    """Routes calls whose first argument is a `Prefix`. Its state belongs to one handle, that is to one ingress."""

    def initialize_state(self, imbalance: int) -> None:
        """Begin with an empty memory; Ray calls this with the router's arguments."""
        self._memory = PrefixMemory(imbalance)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas in ranks of one each, the best first; Ray takes the first that accepts."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # if all refuse, wait before asking again
        by_name = {_name(replica.replica_id): replica for replica in candidate_replicas}
        self._memory.keep_only(by_name)
        loads = {name: self.replica_queue_len_cache.get(replica.replica_id) or 0 for name, replica in by_name.items()}
        return [[by_name[name]] for name in self._memory.rank(_prefix(pending_request), loads)]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: ReplicaResult,  # noqa: ARG002 - Ray's signature
    ) -> None:
        """Remember where a prompt went."""
        self._memory.remember(_name(replica_id), _prefix(pending_request))


def _name(replica_id: ReplicaID) -> str:
    return str(replica_id.unique_id)


def _prefix(request: PendingRequest) -> Prefix:
    return tuple(request.args[0]) if request.args else ()
