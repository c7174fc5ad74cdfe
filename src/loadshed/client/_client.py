"""Client: httpx's, with the policy on."""

import functools
from types import EllipsisType
from typing import Any

import httpx

from loadshed import _clock
from loadshed._errors import ConfigError
from loadshed._policy.criticality import Criticality
from loadshed.client._deadline import reset, within
from loadshed.client._events import OnEvent
from loadshed.client._guards import AdaptiveThrottle, CircuitBreaker, Hedge, RetryBudget
from loadshed.client._retry import Retry
from loadshed.client._sending import READ
from loadshed.client._transport import RetryTransport

DEFAULT = httpx.USE_CLIENT_DEFAULT


class Client(httpx.Client):
    """An `httpx.Client` with the retry policy on: each attempt, all of them, and retries bounded.

    ```python
    with Client(base_url="https://api.example.com") as client:
        response = client.get("/orders")
    ```

    It takes everything that httpx's takes. The transports that it would use (its own, those for
    proxies, `transport=` and `mounts=`) are wrapped in a `RetryTransport`, unless they are one.
    Here the body belongs to the attempt: one that is cut short is tried again, and the deadline
    bounds it. With `stream=True` it is the caller's, and only `with deadline():` bounds it.

    Args:
        retry: The policy; by default `Retry()`, or that of a `RetryTransport` that is given.
        budget: See `RetryTransport`; by default one for all the client's transports.
        breaker: See `RetryTransport`.
        throttle: See `RetryTransport`.
        hedge: For the async client only.
        raise_on_exhausted: See `RetryTransport`.
        propagate_deadline: See `RetryTransport`.
        criticality: See `RetryTransport`.
        on_event: See `RetryTransport`.
        options: What `httpx.Client` takes. Where `timeout` is not among them, it is the policy's
            `attempt_timeout`; httpx's own default, 5 seconds for each operation, would end
            attempts before their time.

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
            RetryTransport,
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
        super().__init__(**options)

        def wrapped(transport: httpx.BaseTransport) -> RetryTransport:
            return transport if isinstance(transport, RetryTransport) else wrap(transport)

        # What httpx makes of its many options can be had in no other way.
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

    def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send a request: see `httpx.Client.send`."""
        request.extensions[READ] = not stream
        policy = self._policy
        if self._has_other_policies or "retry" in request.extensions:
            policy = policy_of(self, request)
        seconds = policy.deadline
        if seconds is None or is_alone(self, auth, follow_redirects):
            return super().send(
                request, stream=stream, auth=auth, follow_redirects=follow_redirects
            )
        token = within(seconds, _clock.thread_time())
        try:
            return super().send(
                request, stream=stream, auth=auth, follow_redirects=follow_redirects
            )
        finally:
            reset(token)


def policy_for(retry: Retry | None, options: dict[str, Any]) -> Retry:
    """The client's policy, and the timeout that goes with it."""
    if retry is None:
        retry = getattr(options.get("transport"), "retry", None)
        retry = retry if isinstance(retry, Retry) else Retry()
    if not isinstance(retry, Retry):
        raise ConfigError("retry", retry, "a Retry, or None")
    if "timeout" not in options:
        limit = retry.attempt_timeout
        options["timeout"] = None if limit is None else httpx.Timeout(ByDefault(limit))
    return retry


class ByDefault(float):
    """A timeout that no user has set, and that goes with the policy in force."""


def has_other_policies(client: Any) -> bool:
    """Whether a `RetryTransport` that was given has another policy than the client."""
    transports = [client._transport, *client._mounts.values()]
    return any(each is not None and each.retry != client._policy for each in transports)


def policy_of(client: Any, request: httpx.Request) -> Retry:
    """The policy for a request: its own, or that of the transport that it goes to.

    The timeout of httpx goes with it, where the user has set none.
    """
    policy = request.extensions.get("retry") or client._transport_for_url(request.url).retry
    if not isinstance(policy, Retry):
        return client._policy  # type: ignore[no-any-return] # it is refused where it is used
    timeout = request.extensions.get("timeout", client.timeout.as_dict())
    if isinstance(timeout["read"], ByDefault):
        request.extensions["timeout"] = httpx.Timeout(policy.attempt_timeout).as_dict()
    return policy


def is_alone(client: Any, auth: Any, follow_redirects: Any) -> bool:
    """Whether a request stays one, so that the transport can see to its deadline.

    Redirects and authentication make several of it, which have one deadline.
    """
    follows = client.follow_redirects if follow_redirects is DEFAULT else follow_redirects
    return not follows and (client.auth if auth is DEFAULT else auth) is None
