# mypy: disable-error-code="attr-defined"
"""What `to_ray` makes of applications, on a real Ray Serve."""

import collections
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from ray import serve
from websockets.sync.client import connect

from loadshed import ConfigError, QueueFullError, RequestTimeoutError
from loadshed.ray_serve import build, to_ray
from loadshed.ray_serve._handle import translated
from loadshed.serve import deployment
from tests.ray import apps
from tests.ray.conftest import Serve


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def at_intervals(url: str, *numbers: int) -> list[httpx.Response]:
    """The responses to so many requests at once, and 0.25 s later to so many, and so on."""
    futures: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(sum(numbers)) as threads:
        for number in numbers:
            futures += [threads.submit(httpx.get, url, timeout=30) for _ in range(number)]
            time.sleep(0.25)
    return [each.result() for each in futures]


def test_the_example_of_the_documentation_ends_as_it_does_there(deployed: Serve) -> None:
    responses = at_intervals(deployed(apps.slow), 2, 2, 5)
    assert [each.status_code for each in responses] == [200] * 4 + [503] * 5
    assert {each.text for each in responses[:4]} == {"Hello!"}
    assert "(num_queued_requests=2, max_queued_requests=2)" in responses[-1].text


def test_a_full_inner_deployment_sheds_with_our_error(deployed: Serve) -> None:
    got = httpx.get(f"{deployed(apps.outer)}/caught", timeout=30).json()
    assert got == [
        "builtins.str: done",
        "builtins.str: done",
        f"loadshed._errors.QueueFullError: {QueueFullError(1, 1)}",
    ]


def test_a_full_inner_deployment_is_a_503_that_says_when_to_come_back(deployed: Serve) -> None:
    url = f"{deployed(apps.outer)}/call"
    responses = at_intervals(url, 1, 1, 1, 1)
    shed = [each for each in responses if each.status_code == 503]
    assert collections.Counter(each.status_code for each in responses) == {200: 2, 503: 2}
    assert {each.headers["retry-after"] for each in shed} == {"1"}
    assert {each.headers["content-type"] for each in shed} == {"application/problem+json"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("chained", 13),
        ("distinct", True),
        ("failing", ["ValueError", ["no", 7], True]),
        ("streaming", [0, 1, 2, 0, 1]),
        ("cancelled", "done"),
        ("stopped", "done"),
        ("in_thread", 5),
    ],
)
def test_deployments_call_one_another(deployed: Serve, path: str, expected: object) -> None:
    response = httpx.get(f"{deployed(apps.outer)}/{path}", timeout=30)
    assert response.status_code == 200, response.text
    got = response.text if isinstance(expected, str) else response.json()
    assert got == expected


def test_a_method_that_is_not_there_is_a_500(deployed: Serve) -> None:
    assert httpx.get(f"{deployed(apps.outer)}/nothing", timeout=30).status_code == 500


def test_a_replica_that_dies_is_a_502(deployed: Serve) -> None:
    response = httpx.get(f"{deployed(apps.outer)}/dying", timeout=30)
    assert (response.status_code, response.json()["title"]) == (502, "Bad Gateway")


def test_the_code_is_configured_checked_and_configured_again(deployed: Serve) -> None:
    url = deployed(apps.configured)
    time.sleep(1)
    assert httpx.get(url).json() == {"value": 22, "was_checked": True}
    other = apps.Configured.options(user_config={"factor": 3}).bind(10, plus=1)
    serve.run(to_ray(other), name=name_of(url), route_prefix=f"/{name_of(url)}")
    assert httpx.get(url).json()["value"] == 33


@pytest.mark.parametrize("what", ["sleep", "asleep"])
def test_a_request_that_takes_too_long_is_a_504(deployed: Serve, what: str) -> None:
    url = deployed(apps.impatient)
    before = httpx.get(url, params={"what": "ended"}).json()
    began = time.monotonic()
    response = httpx.get(url, params={"what": what}, timeout=30)
    assert response.status_code == 504
    assert response.json()["detail"] == "Request not done within request_timeout_s=0.5."
    assert time.monotonic() - began < 0.95
    time.sleep(0.8)
    assert httpx.get(url, params={"what": "ended"}).json() == before + 1


def test_a_response_that_takes_too_long_is_broken_off(deployed: Serve) -> None:
    url = deployed(apps.impatient)
    began = time.monotonic()
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", url, params={"what": "slowly"}, timeout=30) as response,
    ):
        response.read()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("method", ["sleep", "asleep"])
def test_a_call_that_takes_too_long_is_our_error(deployed: Serve, method: str) -> None:
    handle = serve.get_app_handle(name_of(deployed(apps.impatient)))
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError) as caught:
        getattr(handle, method).remote().result()
    assert time.monotonic() - began < 0.95
    error = translated(caught.value)
    assert type(error) is RequestTimeoutError
    assert error.request_timeout_s == 0.5


def test_a_generator_that_takes_too_long_is_our_error(deployed: Serve) -> None:
    handle = serve.get_app_handle(name_of(deployed(apps.impatient)))
    items = handle.options(stream=True).stream.remote()
    assert next(items) == 1
    with pytest.raises(RequestTimeoutError):
        next(items)


def test_the_header_of_a_request_bounds_it(deployed: Serve) -> None:
    headers = {"x-request-timeout-seconds": "0.5"}
    url = deployed(apps.slow)
    began = time.monotonic()
    response = httpx.get(url, headers=headers, timeout=30)
    assert response.status_code == 408
    assert time.monotonic() - began < 1.5


def test_a_thread_whose_caller_has_left_keeps_its_place(deployed: Serve) -> None:
    url = deployed(apps.counting)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(url, params={"seconds": "1.5"}, timeout=0.3)
    assert httpx.get(url, params={"seconds": "0.1"}, timeout=30).json() == 1


def test_handles_of_rays_own_call_what_is_served(deployed: Serve) -> None:
    handle = serve.get_deployment_handle("Inner", name_of(deployed(apps.outer)))
    assert handle.remote(0).result() == "done"
    assert handle.add.remote(1, other=2).result() == 3
    assert list(handle.options(stream=True).count.remote(2)) == [0, 1]
    with pytest.raises(TypeError, match="generator"):
        handle.count.remote(2).result()


def test_endpoints_may_be_methods_of_a_class(deployed: Serve) -> None:
    url = deployed(apps.service)
    assert httpx.get(f"{url}/times/4").json() == 12
    assert httpx.get(f"{url}/times/x").status_code == 422
    assert httpx.get(f"{url}/state").json() == "yes"
    with connect(f"{url}/echo".replace("http", "ws", 1)) as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
    shed = httpx.get(f"{url}/inner", timeout=30)
    assert (shed.status_code, shed.headers["retry-after"]) == (503, "1")


def test_a_function_may_make_the_application(deployed: Serve) -> None:
    assert httpx.get(f"{deployed(apps.made)}/made").json() == "made"


def test_our_admission_in_the_ingress_does_what_ray_cannot(deployed: Serve) -> None:
    first, second = at_intervals(deployed(apps.patient), 1, 1)
    assert (first.status_code, second.status_code) == (200, 503)
    assert "max_wait=0.3" in second.json()["detail"]
    assert second.elapsed.total_seconds() < 1


def test_a_function_may_stream(deployed: Serve) -> None:
    response = httpx.get(deployed(apps.streaming), params={"end": "c"})
    assert (response.text, response.headers["content-type"]) == ("abc", "text/plain")


def test_any_asgi_application_can_be_imported(deployed: Serve) -> None:
    url = deployed("plain", built=build({"import_path": "tests.ray.apps:plain"}))
    root = f"/{name_of(url)}"
    assert httpx.get(f"{url}/x").json() == {"path": f"{root}/x", "root": root}


def test_a_builder_gets_its_arguments(deployed: Serve) -> None:
    args = {"import_path": "tests.ray.apps:builder", "args": {"word": "ab", "times": "2"}}
    assert httpx.get(deployed("builder", built=build(args))).text == "abab"


def test_code_that_no_module_has_is_sent(deployed: Serve) -> None:
    word = "here"

    @deployment(**apps.SMALL)
    class Local:
        async def __call__(self) -> list[str]:
            return [word, type(self).__qualname__.rpartition(".")[2]]

    assert httpx.get(deployed(Local.bind())).json() == ["here", "Local"]


def test_those_turned_away_are_answered_as_it_is_set(deployed: Serve) -> None:
    answers = {"status_code": 429, "retry_after_s": 6.5}
    url = deployed(apps.SlowDeployment.options(backpressure_config=answers).bind())
    last = at_intervals(url, 2, 2, 1)[-1]
    assert (last.status_code, last.headers["retry-after"]) == (429, "7")


def settings_of(application: Any) -> Any:
    return application._bound_deployment._deployment_config


def test_the_settings_are_the_same() -> None:
    made = settings_of(
        to_ray(
            apps.Configured.options(
                num_replicas=3,
                max_ongoing_requests=4,
                max_queued_requests=math.inf,
                user_config=[1],
                health_check_period_s=7,
                health_check_timeout_s=8,
                graceful_shutdown_timeout_s=9,
                max_constructor_retry_count=2,
            ).bind(1)
        )
    )
    assert made.num_replicas == 3
    assert made.max_ongoing_requests == 4
    assert made.max_queued_requests == -1
    assert made.user_config == [1]
    assert made.health_check_period_s == 7
    assert made.health_check_timeout_s == 8
    assert made.graceful_shutdown_timeout_s == 9
    assert made.max_constructor_retry_count == 2


def test_the_queue_is_as_long_as_what_may_be_worked_on() -> None:
    made = deployment(num_replicas=3, max_ongoing_requests=2)(apps.plain_builder).bind()
    assert settings_of(to_ray(made)).max_queued_requests == 6


def test_settings_of_a_file_count_instead_of_those_in_the_code() -> None:
    settings = {"SlowDeployment": {"num_replicas": 3, "max_queued_requests": None}}
    made = settings_of(build({"import_path": "tests.ray.apps:slow", "settings": settings}))
    assert (made.num_replicas, made.max_queued_requests) == (3, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_wait": 1}, "max_wait of plain_builder must be left out"),
        ({"max_ongoing_requests": math.inf}, "max_ongoing_requests of plain_builder"),
        ({"max_ongoing_requests": "auto"}, "max_ongoing_requests of plain_builder must be a whole"),
        ({"order": "adaptive_lifo"}, "order of plain_builder must be left out"),
        ({"shares": {"CRITICAL": 0.5}}, "shares of plain_builder must be left out"),
        ({"trust_criticality": True}, "trust_criticality of plain_builder must be left out"),
        ({"tenant_header": "x-api-key"}, "tenant_header of plain_builder must be left out"),
        ({"max_queued_requests": 0}, "max_queued_requests of plain_builder"),
        ({"user_config": {}}, "plain_builder has no method `reconfigure`"),
        ({"version": "1"}, "what is set for plain_builder must be .*`version`"),
        ({"ray_actor_options": {"cpu": 1}}, "what is set for plain_builder must be .*cpu"),
    ],
)
def test_what_ray_cannot_do_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_ray(deployment(**settings)(apps.plain_builder).bind())


def test_what_ray_has_no_null_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    made = deployment(health_check_period_s=None, max_wait=None)(apps.plain_builder).bind()
    assert settings_of(to_ray(made)).health_check_period_s == 10
    (said,) = caplog.messages
    assert said.startswith("health_check_period_s of plain_builder is 10 on Ray.")


@pytest.mark.parametrize("wrong", [apps.Inner, apps.plain, None])
def test_something_else_is_no_application(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="application must be a bound deployment"):
        to_ray(wrong)
