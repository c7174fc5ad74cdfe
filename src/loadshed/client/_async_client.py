"""AsyncClient: httpx's, with the policy on."""

import functools
from types import EllipsisType
from typing import Any

import httpx

from loadshed._clock import SharedClock
from loadshed._policy.criticality import Criticality
from loadshed.client._async_transport import AsyncRetryTransport
from loadshed.client._client import has_other_policies, is_alone, policy_for, policy_of
from loadshed.client._deadline import reset, within
from loadshed.client._events import OnEvent
from loadshed.client._guards import AdaptiveThrottle, CircuitBreaker, Hedge, RetryBudget
from loadshed.client._retry import Retry
from loadshed.client._sending import READ


class AsyncClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` with the retry policy on, on asyncio and trio: see `Client`.

    ```python
    async with AsyncClient(retry=Retry(total=3)) as client:
        response = await client.get("https://api.example.com/orders")
    ```

    Args:
        retry: See `Client`.
        budget: See `RetryTransport`.
        breaker: See `RetryTransport`.
        throttle: See `RetryTransport`.
        hedge: See `AsyncRetryTransport`.
        raise_on_exhausted: See `RetryTransport`.
        propagate_deadline: See `RetryTransport`.
        criticality: See `RetryTransport`.
        on_event: See `RetryTransport`.
        options: What `httpx.AsyncClient` takes; see `Client` for `timeout`.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        budget: RetryBudget | EllipsisType | None = ...,
        breaker: CircuitBreaker | None = None,
        throttle: AdaptiveThrottle | None = None,
        hedge: Hedge | None = None,
        raise_on_exhausted: bool = False,
        propagate_deadline: bool = True,
        criticality: Criticality | str | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> None:
        self._policy = policy_for(retry, options)
        wrap = functools.partial(
            AsyncRetryTransport,
            retry=self._policy,
            budget=RetryBudget() if isinstance(budget, EllipsisType) else budget,
            breaker=breaker,
            throttle=throttle,
            hedge=hedge,
            raise_on_exhausted=raise_on_exhausted,
            propagate_deadline=propagate_deadline,
            criticality=criticality,
            on_event=on_event,
        )
        wrap()  # a mistake is told of, whatever there is to wrap
        self._clock = SharedClock()
        super().__init__(**options)

        def wrapped(transport: httpx.AsyncBaseTransport) -> AsyncRetryTransport:
            return transport if isinstance(transport, AsyncRetryTransport) else wrap(transport)

        self._transport = wrapped(self._transport)
        self._mounts = {
            pattern: None if transport is None else wrapped(transport)
            for pattern, transport in self._mounts.items()
        }
        self._has_other_policies = has_other_policies(self)

    @property
    def retry(self) -> Retry:
        """The policy."""
        return self._policy

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send a request: see `httpx.AsyncClient.send`."""
        request.extensions[READ] = not stream
        policy = self._policy
        if self._has_other_policies or "retry" in request.extensions:
            policy = policy_of(self, request)
        seconds = policy.deadline
        if seconds is None or is_alone(self, auth, follow_redirects):
            return await super().send(
                request, stream=stream, auth=auth, follow_redirects=follow_redirects
            )
        token = within(seconds, self._clock.now())
        try:
            return await super().send(
                request, stream=stream, auth=auth, follow_redirects=follow_redirects
            )
        finally:
            reset(token)
