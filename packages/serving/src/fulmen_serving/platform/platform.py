"""Keys, limits and usage of a running server: from a secret to an account that the service may charge."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fulmen_core.errors import UserError
from fulmen_serving.platform.api_key import PREFIX, ApiKey, secret_hash
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_limiter import KeyLimiter, limits_of
from fulmen_serving.platform.key_store import KeyStore
from fulmen_serving.platform.meter import UsageMeter
from fulmen_serving.platform.prices import PriceTable
from fulmen_serving.platform.usage_store import UsageStore, next_month_of
from fulmen_serving.refusal import Refusal

logger = logging.getLogger(__name__)

#: Keys known without asking the database.
_MAX_KNOWN = 10_000
#: How long a key is believed: what another process revokes or uses counts here after that time.
BELIEVED_SECONDS = 2.0


class KeyAccount:
    """One request of a key, from `Platform.enter` until `leave`."""

    def __init__(self, key: ApiKey, limiter: KeyLimiter, meter: UsageMeter, clock: Callable[[], float]) -> None:
        self.key, self.limiter, self._meter, self._clock = key, limiter, meter, clock

    @property
    def salt(self) -> str:
        """The key: how long a prompt takes would tell other keys whether this one has sent it (CVE-2025-46570)."""
        return self.key.id

    def leave(self) -> None:
        """The request ended. Once."""
        self.limiter.leave()

    def admit(self, model: str, prompt_tokens: int) -> KeyCharge:
        """Let a prompt be read; see `fulmen_serving.account.Account`.

        Raises:
            Refusal: 429, the key's tokens of this minute or its organisation's of this month are used up.
        """
        quota = self.key.tokens_per_month
        if (
            quota is not None
            and (used := self._meter.used_this_month(self.key.organisation_id)) + prompt_tokens > quota
        ):
            now = self._clock()
            raise Refusal(
                429,
                f"The organisation has used {used} of its {quota} tokens of this month, and the prompt has "
                f"{prompt_tokens}",
                code="insufficient_quota",
                retry_after=math.ceil(next_month_of(now) - now),
            )
        self.limiter.take_prompt(prompt_tokens)
        return KeyCharge(self, model, prompt_tokens)

    def use(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Meter what was computed."""
        self._meter.add(self.key, model, prompt_tokens, completion_tokens)


class KeyCharge:
    """The tokens of one request; see `fulmen_serving.account.Charge`."""

    def __init__(self, account: KeyAccount, model: str, taken: int) -> None:
        self._account, self._model, self._taken = account, model, taken

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Meter what was computed, and correct the limit by what was not foreseen."""
        self._account.limiter.correct(prompt_tokens + completion_tokens - self._taken)
        self._account.use(self._model, prompt_tokens, completion_tokens)

    def cancel(self) -> None:
        """Give back what was taken."""
        self._account.limiter.correct(-self._taken)


class Platform:
    """The keys, limits and usage in one database, for one server. Limits are the server's own, usage is everybody's.

    Args:
        database: open; `close` closes it.
        prices: what tokens cost.
        flush_seconds: between two batches of usage.
        clock: Unix seconds.
        monotonic: seconds that never go backwards.
    """

    def __init__(
        self,
        database: Database,
        prices: PriceTable | None = None,
        *,
        flush_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database, self.prices = database, prices or PriceTable()
        self.keys, self.usage = KeyStore(database), UsageStore(database)
        self.meter = UsageMeter(self.usage, self.prices, seconds=flush_seconds, clock=clock)
        self._clock, self._monotonic = clock, monotonic
        self._threads = ThreadPoolExecutor(4, "fulmen-keys")
        # touched by the event loop's thread alone
        self._known: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()  # hash -> believed until, key
        self._limiters: dict[str, KeyLimiter] = {}

    async def enter(self, secret: str) -> KeyAccount:
        """Begin a request of whoever holds `secret`; its `leave` must follow.

        Raises:
            Refusal: 401 the key is unknown, revoked or expired; 429 it sends too much; 503 nobody can tell.
        """
        key = await self.authenticate(secret)
        limiter = self._limiters.get(key.id)
        if limiter is None or limiter.limits != limits_of(key):
            limiter = self._limiters[key.id] = KeyLimiter(key, self._monotonic)
        account = KeyAccount(key, limiter, self.meter, self._clock)
        self.meter.touch(key)
        limiter.enter()
        return account

    async def authenticate(self, secret: str) -> ApiKey:
        """Return the active key with that secret.

        Raises:
            Refusal: 401 there is none, 503 the database failed.
        """
        if not secret.startswith(PREFIX):
            raise _unauthorised("The API key is not valid")
        hashed = secret_hash(secret)
        believed = self._known.get(hashed)
        if believed is None or believed[0] <= self._monotonic():
            self._known.pop(hashed, None)
            until = self._monotonic() + BELIEVED_SECONDS
            try:
                key = await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, hashed)
            except UserError as error:  # fail closed
                logger.error("a key cannot be checked: %s", error)
                raise Refusal(
                    503, "API keys cannot be checked at the moment", code="service_unavailable", retry_after=5
                ) from None
            if key is None:
                raise _unauthorised("The API key is not valid")
            self._known[hashed] = believed = until, key
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        key = believed[1]
        if (state := key.state(self._clock())) != "active":
            raise _unauthorised(f"The API key is {state}")
        return key

    def forget(self) -> None:
        """Believe nothing any more: what was changed through this server counts with the next request."""
        self._known.clear()

    def close(self) -> None:
        """Write what was metered and close the database. Idempotent."""
        self._threads.shutdown()
        self.meter.close()
        self.database.close()

    def _look_up(self, hashed: str) -> ApiKey | None:
        key = self.keys.find(hashed)
        if key is not None and key.tokens_per_month is not None:
            self.meter.refresh(key.organisation_id)
        return key


def _unauthorised(message: str) -> Refusal:
    return Refusal(401, message, code="invalid_api_key")
