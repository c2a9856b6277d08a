"""`fulmen serve`: a model behind the OpenAI-compatible API until SIGTERM or Ctrl-C."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import note
from fulmen_serving.cli.adapter_options import add_adapter_options, with_adapter_options
from fulmen_serving.cli.cache_options import add_cache_options, with_cache_options
from fulmen_serving.cli.edge_options import add_edge_options, check_prices, open_edge, warn_if_open
from fulmen_serving.cli.options import add_model_options, serving_options
from fulmen_serving.cli.process_options import add_process_options, guard_process, start_model, with_process_options
from fulmen_serving.cli.tls_options import add_tls_options, tls_files
from fulmen_serving.cli.tool_options import add_tool_options, toolbox_of


def run(argv: Sequence[str]) -> int:
    """Serve until stopped; 0 after a drained stop.

    Raises:
        UserError: an argument, the model, the guard or the port is at fault.
    """
    arguments = parser("fulmen serve", "serve a model behind the OpenAI-compatible API", recipe=False, json=False)
    add_model_options(arguments, max_sequences=16)
    arguments.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    arguments.add_argument("--port", type=int, default=8000, help="the port; 0 takes a free one (%(default)s)")
    arguments.add_argument(
        "--max-waiting", type=int, metavar="N", default=64, help="requests that may wait for a slot (%(default)s)"
    )
    arguments.add_argument(
        "--max-queued-tokens", type=int, metavar="N", default=65_536, help="prompt tokens that may wait (%(default)s)"
    )
    arguments.add_argument(
        "--drain-seconds", type=int, metavar="N", default=30, help="time to finish answers when stopped (%(default)s)"
    )
    add_cache_options(arguments)
    add_adapter_options(arguments)
    add_process_options(arguments)
    add_edge_options(arguments)
    add_tls_options(arguments)
    add_tool_options(arguments)
    args = arguments.parse_args(argv)
    options = with_cache_options(serving_options(args, max_sequences=args.max_sequences), args)
    options = with_process_options(with_adapter_options(options, args), args)

    from importlib.metadata import version

    from fulmen_core.cli import context

    if (tls := tls_files(args)) is not None:
        tls.context()  # as the port: a fault of these files should cost no time
    with contextlib.ExitStack() as stack:
        process = start_model(args, options, context.registry())  # loads while what follows is imported
        if process is not None:
            stack.callback(process.close)
        guarding = guard_process(args, options, context.registry())
        if guarding is not None:
            stack.callback(guarding.close)

        from fulmen_serving.api.app import make_app
        from fulmen_serving.engine.admission import AdmissionLimits
        from fulmen_serving.loading import load_service
        from fulmen_serving.server import DrainingServer, bind, url_of

        listener = bind(args.host, args.port)  # before the model is waited for: a busy port should cost no time
        stack.callback(listener.close)
        # closed last: it writes what the service metered
        edge = stack.enter_context(open_edge(args, options.served_name))
        warn_if_open(listener, edge)
        toolbox = toolbox_of(args, context.registry())  # before the model, too: a wrong option should cost no time
        admission = AdmissionLimits(args.max_waiting, args.max_queued_tokens)
        service = load_service(replace(options, admission=admission), context.registry(), process, guarding)
        stack.callback(service.close)
        check_prices(edge, service.model.name)
        app = make_app(
            service, version=version("fulmen-serving"), max_body_bytes=args.max_body_bytes, edge=edge, toolbox=toolbox
        )
        url = url_of(listener, "http" if tls is None else "https")
        model, guard = service.model, service.guard
        policy = f"RAISE policy {guard.policy_version}" if guard else "no guard"
        keys = ", API keys demanded" if edge.platform is not None else ""
        tools = f", tools {', '.join(toolbox.tools)}" if toolbox.tools else ""
        detail = f"backend {model.backend}, {service.max_choices} x {service.max_context} tokens, {policy}{keys}{tools}"
        server = DrainingServer(
            app,
            service.engine,
            drain_seconds=args.drain_seconds,
            on_ready=lambda: note(f"Serving {model.name} on {url} ({detail})"),
            tls=tls,
        )
        server.run(sockets=[listener])
    return 0
