"""`fulmen serve-ray`: a model behind the OpenAI-compatible API, with several replicas, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import replace

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import note
from fulmen_core.errors import UserError
from fulmen_serving.cli.adapter_options import add_adapter_options, with_adapter_options
from fulmen_serving.cli.edge_options import add_edge_options
from fulmen_serving.cli.options import add_model_options, serving_options


def run(argv: Sequence[str]) -> int:
    """Serve until stopped.

    Raises:
        UserError: an argument is at fault, Ray is not installed, or the replicas do not start.
    """
    arguments = parser("fulmen serve-ray", "serve a model with several replicas on Ray", recipe=False, json=False)
    add_model_options(arguments, max_sequences=16)
    arguments.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    arguments.add_argument("--port", type=int, default=8000, help="the port (%(default)s)")
    arguments.add_argument("--max-waiting", type=int, metavar="N", default=64, help="that may wait at a replica")
    arguments.add_argument("--max-queued-tokens", type=int, metavar="N", default=65_536, help="as `fulmen serve`")
    arguments.add_argument("--drain-seconds", type=int, metavar="N", default=30, help="as `fulmen serve`")
    add_edge_options(arguments)
    add_adapter_options(arguments)
    arguments.add_argument("--replicas", type=int, metavar="N", default=2, help="copies of the model (%(default)s)")
    arguments.add_argument("--cpus", type=float, metavar="N", default=1, help="of each replica (%(default)s)")
    arguments.add_argument(
        "--imbalance", type=int, metavar="N", help="requests that a replica may be ahead; default: half its sequences"
    )
    arguments.add_argument(
        "--address", metavar="ADDRESS", help="of a running Ray cluster, e.g. auto; default: a cluster of this machine"
    )
    args = arguments.parse_args(argv)
    options = with_adapter_options(serving_options(args, max_sequences=args.max_sequences), args)
    if args.replicas < 1 or args.cpus <= 0:
        raise UserError("there must be a replica, and it needs a CPU", remedy="raise --replicas or --cpus")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise UserError("Ray is not installed", remedy="pip install 'fulmen-serving-ray[ray]'") from None

    from fulmen_serving.engine.admission import AdmissionLimits
    from fulmen_serving_ray.deployment import application

    options = replace(
        options,
        model=options.model.resolve(),
        adapters=None if options.adapters is None else options.adapters.resolve(),
        admission=AdmissionLimits(args.max_waiting, args.max_queued_tokens),
    )
    stopped = threading.Event()
    cpus = {} if args.address else {"num_cpus": max(1, round(args.replicas * args.cpus)), "include_dashboard": False}
    ray.init(address=args.address, log_to_driver=False, **cpus)
    for sign in (signal.SIGINT, signal.SIGTERM):  # after Ray, which has a handler of its own
        signal.signal(sign, lambda *_: stopped.set())
    try:
        serve.start(http_options={"host": args.host, "port": args.port})
        app = application(options, args, replicas=args.replicas, cpus=args.cpus, imbalance=args.imbalance)
        try:
            serve.run(app, name="fulmen", route_prefix="/")
        except RuntimeError as error:
            raise UserError(
                f"the replicas did not start ({_last_line(error)})", remedy="try `fulmen serve` with the same model"
            ) from error
        note(
            f"Serving {options.name or options.model.name} on http://{args.host}:{args.port} ({args.replicas} replicas)"
        )
        stopped.wait()
        serve.shutdown()
    finally:
        ray.shutdown()
    return 0


def _last_line(error: Exception) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
