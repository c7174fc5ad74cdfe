"""What a config file may say, as models and as JSON Schema."""

import math
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from loadshed.serve import _settings
from loadshed.serve._config.schema import (
    PARTS,
    ApplicationConfig,
    BackpressureConfig,
    DeploymentConfig,
    HTTPOptions,
    RuntimeEnv,
    ServeConfig,
    json_schema,
)
from loadshed.serve._settings import CHECKS, ONLY_RAY, Settings
from tests.serve.config.configs import deployments, slow

MODELS = [ServeConfig, *PARTS.values()]


def test_the_defaults_are_those_of_one_machine() -> None:
    config = ServeConfig(applications=())
    assert config.http_options == HTTPOptions()
    assert (config.http_options.host, config.http_options.port) == ("127.0.0.1", 8000)
    assert (config.http_options.root_path, config.http_options.keep_alive_timeout_s) == ("", 90)
    assert config.http_options.request_timeout_s is None
    application = ApplicationConfig(import_path="module:app")
    assert (application.name, application.route_prefix) == ("default", "/")
    assert (application.args, application.deployments) == ({}, ())
    env = application.runtime_env
    assert (env.working_dir, env.py_modules, env.env_vars) == (None, (), {})


def test_a_deployment_has_every_setting_and_those_of_ray_alone() -> None:
    names = set(DeploymentConfig.model_fields)
    assert names == {"name", *CHECKS, *ONLY_RAY}
    assert {each.name for each in fields(Settings)} <= names
    assert DeploymentConfig.for_ray() == ONLY_RAY


def test_a_deployment_gives_only_what_was_given_as_the_settings_have_it() -> None:
    config = DeploymentConfig.model_validate(
        {
            "name": "Model",
            "num_replicas": 2,
            "max_queued_requests": -1,
            "max_wait": math.inf,
            "user_config": None,
            "backpressure_config": {"status_code": 429, "retry_after_s": math.inf},
            "ray_actor_options": {"num_gpus": 1},
        }
    )
    assert config.max_queued_requests == -1
    assert list(config.given().items()) == [
        ("num_replicas", 2),
        ("max_queued_requests", math.inf),
        ("max_wait", None),
        ("user_config", None),
        ("backpressure_config", _settings.BackpressureConfig(status_code=429)),
        ("ray_actor_options", {"num_gpus": 1}),
    ]
    assert DeploymentConfig(name="Model").given() == {}


def test_null_for_how_to_turn_away_is_the_default() -> None:
    given = DeploymentConfig(name="Model", backpressure_config=None).given()
    assert given == {"backpressure_config": _settings.BackpressureConfig()}


@slow
@given(deployments)
def test_what_is_given_can_be_settings(value: dict[str, Any]) -> None:
    given = DeploymentConfig.model_validate(value).given()
    assert given.keys() == value.keys() - {"name"}
    assert _settings.settings(given) == _settings.settings(given_only(value))


def given_only(value: dict[str, Any]) -> dict[str, Any]:
    """The same by the rules of the code alone: those know no name, and an infinite wait is none."""
    given = {name: each for name, each in value.items() if name != "name"}
    backpressure = given.get("backpressure_config")
    if backpressure and backpressure.get("retry_after_s") == math.inf:
        given["backpressure_config"] = {**backpressure, "retry_after_s": None}
    return given


def test_a_config_is_frozen() -> None:
    config = HTTPOptions()
    with pytest.raises(ValidationError, match="frozen"):
        config.port = 1


def test_a_config_keeps_no_hold_of_the_data_it_was_made_of() -> None:
    inner: list[int] = []
    config = DeploymentConfig(name="Model", user_config={"a": inner})
    inner.append(1)
    assert config.user_config == {"a": []}


def test_models_are_taken_for_what_they_are() -> None:
    deployment = DeploymentConfig(name="Model", backpressure_config=BackpressureConfig())
    env = RuntimeEnv(working_dir="code")
    application = ApplicationConfig(
        import_path="module:app", runtime_env=env, deployments=(deployment,)
    )
    config = ServeConfig(applications=(application,), http_options=HTTPOptions(port=1))
    assert config.applications[0].deployments[0] == deployment
    assert config.applications[0].runtime_env == env


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeploymentConfig(name="A", num_replicas=0), "must be a whole number >= 1, not 0."),
        (lambda: HTTPOptions(port=-1), "port must be a whole number from 0 to 65535, not -1."),
        (
            lambda: RuntimeEnv(env_vars={"=": "a", "b": "\0"}),
            "\\['='\\] must be a name without '=' .*\nb must be a string",
        ),
        (
            lambda: ServeConfig(
                applications=(
                    ApplicationConfig(import_path="a:b"),
                    ApplicationConfig(import_path="a:b"),
                )
            ),
            r"\[1\].name must be another .*\n\[1\].route_prefix must be another",
        ),
        (
            lambda: ApplicationConfig(
                import_path="a:b",
                deployments=(DeploymentConfig(name="A"), DeploymentConfig(name="A")),
            ),
            r"\[1\].name must be another than that of number 1, not 'A'.",
        ),
        (lambda: RuntimeEnv.model_validate({"env_vars": {1: "a"}}), "must be a string"),
        (lambda: RuntimeEnv.model_validate({"env_vars": MappingProxyType({})}), "mappingproxy"),
        (
            lambda: ApplicationConfig(import_path="a:b", args={"a": object()}),
            "not of the type object",
        ),
    ],
)
def test_models_made_in_code_are_held_to_the_rules(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_applications_without_a_route_do_not_clash() -> None:
    apps = [ApplicationConfig(name=name, route_prefix=None, import_path="a:b") for name in "ab"]
    assert len(ServeConfig(applications=tuple(apps)).applications) == 2


def test_the_json_schema_describes_every_field() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["$defs"]) == {model.__name__ for model in PARTS.values()}
    for model, described in [(ServeConfig, schema), *in_schema(schema)]:
        assert described["title"] == model.__name__
        assert described["additionalProperties"] is False
        assert set(described["properties"]) == set(model.model_fields)
        for name, each in described["properties"].items():
            assert each["title"]
            assert each["description"].endswith((".", "'."))
            for_ray = each["description"].startswith("For Ray, no effect on one machine: ")
            assert for_ray == (name in model.for_ray())


def in_schema(schema: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(model, schema["$defs"][model.__name__]) for model in PARTS.values()]


def test_the_json_schema_requires_what_the_models_require() -> None:
    schema = json_schema()
    required = {name: each["required"] for name, each in schema["$defs"].items()}
    assert schema["required"] == ["applications"]
    assert required == {
        "HTTPOptions": [],
        "RuntimeEnv": [],
        "BackpressureConfig": [],
        "DeploymentConfig": ["name"],
        "ApplicationConfig": ["import_path"],
    }


def test_the_json_schema_refers_to_what_it_has() -> None:
    schema = json_schema()
    referred = set(references(schema))
    assert referred == {f"#/$defs/{name}" for name in schema["$defs"]}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [each for inner in value.values() for each in references(inner)]
    return (
        [each for inner in value for each in references(inner)] if isinstance(value, list) else []
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_rule_is_for_a_field(model: Any) -> None:
    assert issubclass(model, BaseModel)
    assert set(model.rules) <= set(model.model_fields)
