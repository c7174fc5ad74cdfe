"""RunningDeployment: one deployment in the server, and the pool that it runs in."""

import hashlib
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from loadshed._exchange import Scope
from loadshed._pool.application import PoolApplication
from loadshed._pool.pool import ReplicaPool
from loadshed._pool.statistics import ReplicaState, ReplicaStatistics
from loadshed._standing import Standings
from loadshed.serve._config.rules import INFINITE
from loadshed.serve._goal import Code
from loadshed.serve._settings import Settings

HOSTED = "loadshed.serve._hosted:Hosted"

LONGEST_TENANT = 64
"""Bytes of a tenant's name that are kept as they are."""


class RunningDeployment:
    """Starts a deployment, changes it while it serves, and ends it.

    Args:
        application: The name of its application.
        name: Its own.
        code: What its replicas are made of.
        settings: What it is to be like.
        peers: The pools of its application, by name.
        tasks: Where it lives.

    Attributes:
        pool: What it runs in.
        code: What its replicas are made of.
        settings: What it is like.
        failure: What went wrong last; empty if nothing did.
        is_ready: Whether it has served.
    """

    def __init__(
        self,
        application: str,
        name: str,
        *,
        code: Code,
        settings: Settings,
        peers: dict[str, ReplicaPool],
        tasks: TaskGroup,
    ) -> None:
        self.name = name
        self.code = code
        self.settings = settings
        self.failure = ""
        self.is_ready = False
        self._tasks = tasks
        self._has_begun = False
        self._ended = anyio.Event()
        self._leave = anyio.Event()
        self.pool = ReplicaPool(
            HOSTED,
            init_args=(code.source, name),
            num_replicas=settings.num_replicas,
            max_ongoing_requests=settings.max_ongoing_requests,
            max_wait=settings.max_wait,
            request_timeout_s=settings.request_timeout_s,
            user_config=settings.user_config,
            health_check_period_s=settings.health_check_period_s,
            health_check_timeout_s=settings.health_check_timeout_s,
            graceful_shutdown_timeout_s=settings.graceful_shutdown_timeout_s,
            name=name if application == "default" else f"{application}:{name}",
            **_line(settings),
        )
        self.pool._within(code.environment, peers)
        self.application.trust_deadline = True
        self.application.tries = 2
        self._serve_http_as(settings)

    @property
    def application(self) -> PoolApplication:
        """Where its HTTP requests go."""
        return self.pool.asgi

    async def start(self) -> None:
        """Start all of its replicas.

        Raises:
            LoadShedError: One can't be started, and there is none.
        """
        self._has_begun = True
        ready = anyio.Event()
        scope = anyio.CancelScope()
        failure: list[Exception] = []

        async def live() -> None:
            try:
                with scope:
                    async with self.pool:
                        ready.set()
                        await self._leave.wait()
            except Exception as error:  # noqa: BLE001 - it is raised below
                failure.append(error)
            finally:
                self._ended.set()
                ready.set()

        self._tasks.start_soon(live)
        try:
            await ready.wait()
        except BaseException:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
            raise
        if failure:
            raise failure[0]
        self.is_ready = True

    async def stop(self) -> None:
        """Let what came be served, then end all replicas."""
        self._leave.set()
        if self._has_begun:
            await self._ended.wait()

    async def change(self, code: Code, settings: Settings) -> None:
        """Be made of this, and be like that. Replicas are replaced only where they must be.

        Raises:
            Exception: That can't be done. It is as it was.
        """
        if code.version != self.code.version or _forgets(self.settings, settings):
            await self._roll(code, settings)
        await self._resize(settings)
        self._serve_http_as(settings)
        self.settings = settings

    async def _roll(self, code: Code, settings: Settings) -> None:
        await self.pool._roll(
            init_args=(code.source, self.name),
            environment=code.environment,
            config=() if settings.user_config is None else (settings.user_config,),
        )
        self.code = code
        self.settings = replace(self.settings, user_config=settings.user_config)

    async def _resize(self, settings: Settings) -> None:
        """What can be changed while replicas serve."""
        config = settings.user_config
        await self.pool._look_after(
            max_wait=settings.max_wait,
            request_timeout_s=settings.request_timeout_s,
            health_check_period_s=settings.health_check_period_s,
            health_check_timeout_s=settings.health_check_timeout_s,
            grace=_or_forever(settings.graceful_shutdown_timeout_s),
        )
        await self.pool._line_up(**_line(settings))
        await self.pool.reconfigure(
            num_replicas=settings.num_replicas,
            max_ongoing_requests=settings.max_ongoing_requests,
            user_config=None if config == self.settings.user_config else config,
        )

    def status(self) -> dict[str, Any]:
        """What it is doing, as plain data; the keys are Ray Serve's where that has them."""
        statistics = self.pool.statistics()
        counts = Counter(str(each.state) for each in statistics.replicas)
        running = counts[ReplicaState.RUNNING]
        status, message = "HEALTHY", self.failure
        if self.failure:
            status = "DEPLOY_FAILED"
        elif running < self.settings.num_replicas:
            status, message = ("UNHEALTHY" if self.is_ready else "UPDATING"), self.pool._trouble
        return {
            "status": status,
            "status_trigger": "CONFIG_UPDATE_COMPLETED" if status == "HEALTHY" else "UNSPECIFIED",
            "replica_states": dict(counts),
            "message": message,
            "target_num_replicas": self.settings.num_replicas,
            "max_ongoing_requests": _in_json(self.settings.max_ongoing_requests),
            "replicas": [_replica(each) for each in statistics.replicas],
            "ongoing_requests": statistics.ongoing,
            "queued_requests": statistics.queued,
            "completed_requests": statistics.completed,
            "shed": dict(statistics.shed),
            "latency_ms": {
                "p50": _milliseconds(self.pool._latency(0.5)),
                "p99": _milliseconds(self.pool._latency(0.99)),
            },
        }

    def _serve_http_as(self, settings: Settings) -> None:
        answer = settings.backpressure_config
        self.application.answer_as(answer.status_code, answer.retry_after_s)
        header = settings.tenant_header
        self.application.standings = Standings(
            trust_criticality=settings.trust_criticality,
            tenant=None if header is None else TenantOf(header),
        )


class TenantOf:
    """Whose a request is: the value of a header.

    Those without it are one tenant, which has its bounds like any other: else who leaves it out
    would have more.

    Args:
        header: Its name.
    """

    def __init__(self, header: str) -> None:
        self._name = header.lower().encode()

    def __call__(self, scope: Scope) -> bytes:
        """The value; of a long one a digest, as some of many tenants are remembered."""
        value = b",".join(value for name, value in scope["headers"] if name == self._name)
        return value if len(value) <= LONGEST_TENANT else hashlib.sha256(value).digest()


def _line(settings: Settings) -> dict[str, Any]:
    """How many wait, and who of them goes first, as a pool has it."""
    return {
        "max_queued_requests": settings.max_queued_requests,
        "order": settings.order,
        "shares": settings.shares,
        "max_tenants": settings.max_tenants,
        "tenant_share": settings.tenant_share,
    }


def _or_forever(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _forgets(old: Settings, new: Settings) -> bool:
    """Whether a `user_config` is taken back, which only a new replica can do."""
    return new.user_config is None and old.user_config is not None


def _replica(statistics: ReplicaStatistics) -> dict[str, Any]:
    return {
        "id": statistics.id,
        "pid": statistics.pid,
        "state": str(statistics.state),
        "ongoing": statistics.ongoing,
        "max_ongoing_requests": _in_json(statistics.max_ongoing_requests),
        "limit_reason": statistics.limit_reason,
        "served": statistics.served,
        "failed": statistics.failed,
    }


def _in_json(limit: float | str) -> float | str:
    """It has no number for infinity."""
    return INFINITE if limit == math.inf else limit


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
