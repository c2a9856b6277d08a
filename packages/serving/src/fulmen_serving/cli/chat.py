"""`fulmen chat`: talk to a model in this process, or to any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli.arguments import parser
from fulmen_core.errors import UserError
from fulmen_serving.cli.api_key_option import add_api_key_option, api_key
from fulmen_serving.cli.options import add_model_options, serving_options


def run(argv: Sequence[str]) -> int:
    """Chat until /exit or the end of the input; 2 if an answer failed and nobody was there to see it.

    Raises:
        UserError: an argument, the model, the guard or the server is at fault.
    """
    arguments = parser("fulmen chat", "talk to a model in the terminal", recipe=False, json=False)
    add_model_options(arguments, max_sequences=None)
    arguments.add_argument("--url", help="a server to talk to instead, e.g. http://127.0.0.1:8000")
    add_api_key_option(arguments)
    arguments.add_argument("--system", default="", metavar="TEXT", help="the system prompt")
    arguments.add_argument("--temperature", type=float, help="0 takes the likeliest token; default: the model's")
    arguments.add_argument("--top-p", type=float, help="keep the likeliest tokens of this probability")
    arguments.add_argument("--max-tokens", type=int, metavar="N", help="tokens of one answer; default: what fits")
    arguments.add_argument("--seed", type=int, help="makes the answers repeatable")
    args = arguments.parse_args(argv)
    if (args.url is None) == (args.model is None):
        raise UserError("fulmen chat needs either --model or --url", remedy="give one of them")

    from fulmen_serving.answer_options import AnswerOptions
    from fulmen_serving.terminal.chat import TerminalChat
    from fulmen_serving.terminal.partner import Partner

    options = AnswerOptions(temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens, seed=args.seed)
    partner: Partner
    if args.url is not None:
        from fulmen_serving.terminal.remote import RemotePartner

        partner = RemotePartner(args.url, options, api_key(args.api_key))
    else:
        from fulmen_core.cli import context
        from fulmen_serving.loading import load_service
        from fulmen_serving.terminal.local import LocalPartner

        partner = LocalPartner(load_service(serving_options(args, max_sequences=1), context.registry()), options)
    return TerminalChat(partner, system=args.system).run()
