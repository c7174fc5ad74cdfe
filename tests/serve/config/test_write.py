"""Writing a config, and reading again what was written."""

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from loadshed import ConfigError
from loadshed.serve._config.file import ConfigFileError, from_plain, parse
from loadshed.serve._config.schema import DeploymentConfig, ServeConfig
from loadshed.serve._config.write import Application, Engine, build, to_plain, to_yaml
from loadshed.serve._described import Described, DescribedDeployment
from loadshed.serve._settings import BackpressureConfig, Settings, settings
from tests.serve.config import configs


def application(
    *deployments: DescribedDeployment,
    name: str = "default",
    route_prefix: str | None = "/",
    import_path: str = "module:app",
) -> Application:
    return Application(
        name=name,
        route_prefix=route_prefix,
        import_path=import_path,
        described=Described(deployments=deployments),
    )


def model(reconfigurable: bool = False, /, **given: Any) -> DescribedDeployment:
    return DescribedDeployment(name="Model", given=given, reconfigurable=reconfigurable)


def built(*deployments: DescribedDeployment, engine: Engine = "loadshed") -> Any:
    """What the file says of the deployments."""
    text = build([application(*deployments)], engine=engine)
    return yaml.safe_load(text)["applications"][0]["deployments"]


@configs.slow
@given(configs.configs)
def test_what_was_written_says_the_same(value: dict[str, Any]) -> None:
    config = from_plain(value).config
    text = to_yaml(config)
    again = parse(text).config
    assert again == config
    assert to_yaml(again) == text


@configs.slow
@given(configs.configs)
def test_what_was_sent_as_json_says_the_same(value: dict[str, Any]) -> None:
    config = from_plain(value).config
    sent = json.dumps(to_plain(config), allow_nan=False)
    assert from_plain(json.loads(sent)).config == config
    assert to_yaml(from_plain(json.loads(sent)).config) == to_yaml(config)


def test_settings_of_the_queue_are_written_as_they_were_given() -> None:
    text = """\
applications:
- import_path: a:b
  deployments:
  - name: Model
    max_ongoing_requests: auto
    order: fifo
    shares:
      critical: 0.5
      SHEDDABLE: 0.1
    max_tenants: 50
    tenant_share: 0.25
    trust_criticality: true
    tenant_header: X-API-Key
"""
    config = parse(text).config
    assert to_yaml(config) == text
    found = settings(config.applications[0].deployments[0].given())
    assert found == Settings(
        max_ongoing_requests="auto",
        order="fifo",
        shares={"CRITICAL": 0.5, "SHEDDABLE": 0.1},
        max_tenants=50,
        tenant_share=0.25,
        trust_criticality=True,
        tenant_header="X-API-Key",
    )


def test_only_what_was_given_is_written_in_the_order_of_the_fields() -> None:
    text = """\
http_options:
  port: 1
applications:
- name: app
  import_path: a:b
  deployments:
  - name: Model
    max_ongoing_requests: .inf
    max_queued_requests: -1
proxy_location: EveryNode
"""
    assert to_yaml(parse(text).config) == text
    assert to_plain(parse(text).config) == {
        "http_options": {"port": 1},
        "applications": [
            {
                "name": "app",
                "import_path": "a:b",
                "deployments": [
                    {"name": "Model", "max_ongoing_requests": ".inf", "max_queued_requests": -1}
                ],
            }
        ],
        "proxy_location": "EveryNode",
    }


def test_a_part_that_is_there_twice_is_written_twice() -> None:
    text = "applications: [{import_path: 'a:b', args: {a: &a [1], b: *a}}]"
    config = parse(text).config
    assert "&" not in to_yaml(config)
    shared = [1]
    config = ServeConfig.model_validate(
        {"applications": [{"import_path": "a:b", "args": {"a": shared, "b": shared}}]}
    )
    assert "&" not in to_yaml(config)


def test_plain_data_has_no_hold_of_the_config() -> None:
    config = parse("applications: [{import_path: 'a:b', args: {a: [1]}}]").config
    to_plain(config)["applications"][0]["args"]["a"].append(2)
    assert config.applications[0].args == {"a": [1]}


def test_text_of_several_lines_stays_readable() -> None:
    text = "applications: [{import_path: 'a:b', args: {prompt: \"You are\\nkind.\\n\"}}]"
    assert "    prompt: |\n      You are\n      kind.\n" in to_yaml(parse(text).config)


def test_a_new_file_has_every_setting_with_what_it_means() -> None:
    text = build([application(model(num_replicas=2))])
    assert text.splitlines()[15:41] == [  # below what is said of HTTP
        "# All applications that are to run; none stops them all.",
        "applications:",
        "# What the application is called; each its own.",
        "- name: default",
        "  # Path under which HTTP requests reach it, each its own; null is by handle only.",
        "  route_prefix: /",
        "  # Where the code has the application: 'package.module:name'.",
        "  import_path: module:app",
        "  # What the application is built with, where it is a function. Default.",
        "  args: {}",
        "  # Where its code is found, and the variables that it sees.",
        "  runtime_env:",
        "    # Directory that the application runs in, and imports from. Default.",
        "    working_dir: null",
        "    # More directories to import from. Default.",
        "    py_modules: []",
        "    # Environment variables. Default.",
        "    env_vars: {}",
        "  # Settings of its deployments; they count instead of those in the code.",
        "  deployments:",
        "  # What the code calls the deployment.",
        "  - name: Model",
        "    # Processes that serve it.",
        "    num_replicas: 2",
        "    # Requests that each replica works on at once; auto: it finds how many. Default.",
        "    max_ongoing_requests: 5",
    ]
    assert max(len(line) for line in text.splitlines()) <= 100


given_in_code = st.fixed_dictionaries(
    {},
    optional={
        **configs.settings,
        "backpressure_config": st.builds(
            BackpressureConfig,
            status_code=st.sampled_from([503, 429]),
            retry_after_s=configs.seconds,
        ),
    },
)


@configs.slow
@given(given_in_code, st.booleans())
def test_a_new_file_says_what_the_code_says(given: dict[str, Any], reconfigurable: bool) -> None:
    found = parse(build([application(model(reconfigurable, **given))]))
    assert found.warnings == ()
    (deployment,) = found.config.applications[0].deployments
    assert comparable(settings(deployment.given())) == comparable(settings(given))
    missing = DeploymentConfig.model_fields.keys() - deployment.model_fields_set
    no_user_config = not reconfigurable and "user_config" not in given
    assert missing == DeploymentConfig.for_ray() | ({"user_config"} if no_user_config else set())


def comparable(made: Settings) -> Any:
    """To be told to come back after an infinite time is to be told nothing."""
    after = made.backpressure_config.retry_after_s
    return [getattr(made, name) for name in Settings.__slots__ if name != "backpressure_config"] + [
        made.backpressure_config.status_code,
        None if after == math.inf else after,
    ]


def test_a_new_file_can_be_without_applications_and_deployments() -> None:
    assert parse(build([])).config.applications == ()
    (app,) = parse(build([application()])).config.applications
    assert app.deployments == ()


def test_a_new_file_has_each_application() -> None:
    apps = [application(model()), application(name="b", route_prefix=None, import_path="b:app")]
    first, second = parse(build(apps)).config.applications
    assert [each.name for each in first.deployments] == ["Model"]
    assert (second.name, second.route_prefix, second.import_path) == ("b", None, "b:app")


@pytest.mark.parametrize("engine", ["loadshed", "ray"])
def test_no_new_file_is_made_of_applications_that_clash(engine: Engine) -> None:
    with pytest.raises(ConfigFileError) as caught:
        build([application(model(), model()), application()], engine=engine)
    assert [each.where for each in caught.value.mistakes] == [
        "applications[0].deployments[1].name",
        "applications[1].name",
        "applications[1].route_prefix",
    ]


@pytest.mark.parametrize("engine", ["loadshed", "ray"])
@pytest.mark.parametrize("value", [object(), {"a": {1}}, {"a": math.nan}, {1: 2}])
def test_what_no_file_can_hold_is_refused_by_name(engine: Engine, value: object) -> None:
    for setting in ("user_config", "ray_actor_options"):
        with pytest.raises(ConfigError, match=f"^{setting} of Model must be data that a file can"):
            build([application(model(**{setting: value}))], engine=engine)


def test_what_is_for_ray_alone_is_only_a_comment_in_a_file_for_us() -> None:
    text = build([application(model(ray_actor_options={"num_cpus": 2}))])
    assert "    # ray_actor_options: in the code, but for Ray alone.\n" in text
    assert parse(text).warnings == ()


def test_a_user_config_is_none_where_nothing_takes_it() -> None:
    for engine in ("loadshed", "ray"):
        text = build([application(model())], engine=engine)
        assert "    # user_config: none, Model has no `reconfigure`.\n" in text
        assert "user_config" in built(model(True), engine=engine)[0]


class RayModel(BaseModel):
    """As Ray's own classes for settings are."""

    min_replicas: int = 1
    max_replicas: int = 1


def test_a_file_for_ray_has_every_setting_that_ray_knows() -> None:
    assert built(model(True), engine="ray") == [
        {
            "name": "Model",
            "num_replicas": 1,
            "max_ongoing_requests": 5,
            "max_queued_requests": 5,
            "user_config": None,
            "health_check_period_s": 10,
            "health_check_timeout_s": 30,
            "graceful_shutdown_timeout_s": 20,
            "backpressure_config": {"status_code": 503, "retry_after_s": None},
        }
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_queued_requests": math.inf}, {"max_queued_requests": -1}),
        ({"max_queued_requests": 7}, {"max_queued_requests": 7}),
        ({"num_replicas": 3, "max_ongoing_requests": 2}, {"max_queued_requests": 6}),
        ({"max_wait": None}, {}),
        ({"max_wait": math.inf}, {}),
        ({"order": "fifo", "shares": None, "trust_criticality": False}, {}),
        ({"user_config": {"a": 1}}, {"user_config": {"a": 1}}),
        ({"health_check_period_s": None}, {"health_check_period_s": 10}),
        ({"health_check_timeout_s": math.inf}, {"health_check_timeout_s": 30}),
        ({"graceful_shutdown_timeout_s": None}, {"graceful_shutdown_timeout_s": 20}),
        ({"graceful_shutdown_timeout_s": 7.5}, {"graceful_shutdown_timeout_s": 7.5}),
        (
            {"backpressure_config": BackpressureConfig(status_code=429, retry_after_s=math.inf)},
            {"backpressure_config": {"status_code": 429, "retry_after_s": None}},
        ),
        ({"ray_actor_options": {"num_cpus": 2}}, {"ray_actor_options": {"num_cpus": 2}}),
        (
            {"autoscaling_config": {"max_replicas": 4}},
            {"autoscaling_config": {"max_replicas": 4}, "max_queued_requests": 20},
        ),
        (
            {"autoscaling_config": RayModel(max_replicas=2)},
            {"autoscaling_config": {"max_replicas": 2}, "max_queued_requests": 10},
        ),
        (
            {"autoscaling_config": {}, "num_replicas": 2},
            {"autoscaling_config": {}, "max_queued_requests": 10},
        ),
        ({"autoscaling_config": None}, {"autoscaling_config": None}),
        ({"version": "1", "max_constructor_retry_count": 2}, {}),
    ],
)
def test_a_file_for_ray_means_the_same(given: dict[str, Any], expected: dict[str, Any]) -> None:
    (default,) = built(model(), engine="ray")
    (made,) = built(model(**given), engine="ray")
    scaled = given.get("autoscaling_config") is not None
    kept = {name: each for name, each in default.items() if not (scaled and name == "num_replicas")}
    own = {name: given[name] for name in ("num_replicas", "max_ongoing_requests") if name in given}
    assert made == {**kept, **({} if scaled else own), **expected}


def test_a_file_for_ray_names_what_makes_our_application_one_of_rays() -> None:
    patient, impatient = (
        DescribedDeployment(name=name, given=given)
        for name, given in (("Patient", {}), ("Impatient", {"request_timeout_s": 3}))
    )
    text = build(
        [application(patient), application(impatient, name="b", route_prefix="/b")], engine="ray"
    )
    one, other = yaml.safe_load(text)["applications"]
    assert one["import_path"] == other["import_path"] == "loadshed.ray_serve:build"
    assert one["args"] == {"import_path": "module:app"}
    assert other["args"] == {
        "import_path": "module:app",
        "settings": {"Impatient": {"request_timeout_s": 3}},
    }


def test_a_file_for_ray_says_why_a_value_is_another_than_in_the_code() -> None:
    text = build([application(model(health_check_period_s=None))], engine="ray")
    assert "Ray's default; Ray does not know null" in text
    assert "Ray itself has no bound." in text


NO_SUCH_QUEUE = (
    "left out: Ray Serve's queue is first in, first out, for all alike; `LoadShedMiddleware` "
    "around the application of an `ingress` has it there"
)
NOT_FOUND = (
    "a whole number >= 1 for Ray Serve, which finds none by itself; on one machine `loadshed "
    "status` says what was found, and `LoadShedMiddleware` around the application of an `ingress` "
    "finds it there"
)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("max_wait", 1, "left out: Ray Serve knows no bound for the time in the queue"),
        ("max_ongoing_requests", math.inf, "a whole number >= 1 for Ray Serve"),
        ("max_ongoing_requests", "auto", NOT_FOUND),
        ("order", "adaptive_lifo", NO_SUCH_QUEUE),
        ("shares", {"CRITICAL": 0.5}, NO_SUCH_QUEUE),
        ("max_tenants", 10, NO_SUCH_QUEUE),
        ("tenant_share", 0.1, NO_SUCH_QUEUE),
        ("trust_criticality", True, NO_SUCH_QUEUE),
        ("tenant_header", "x-api-key", NO_SUCH_QUEUE),
        ("max_queued_requests", 0, "a whole number >= 1, or math.inf, for Ray Serve"),
        ("user_config", [1], "a mapping for Ray Serve"),
    ],
)
def test_what_ray_cannot_do_is_refused_by_name(setting: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build([application(model(**{setting: value}))], engine="ray")
    assert str(caught.value) == f"{setting} of Model must be {expected}, not {value!r}."


@pytest.mark.parametrize(
    ("bounds", "expected"), [([], None), ([3, 7.5], 7.5), ([3, None], None), ([math.inf], None)]
)
def test_a_file_for_ray_has_one_bound_for_all_requests(bounds: list[Any], expected: object) -> None:
    deployments = [
        DescribedDeployment(name=f"Model{index}", given={"request_timeout_s": bound})
        for index, bound in enumerate(bounds)
    ]
    text = build([application(model(), *deployments)], engine="ray")
    made = yaml.safe_load(text)
    assert made["http_options"]["request_timeout_s"] == expected
    assert ("Ray has one for all" in text.replace("\n  #", "")) == (expected is not None)
    assert made["http_options"]["host"] == "0.0.0.0"  # noqa: S104
    assert made["proxy_location"] == "EveryNode"
