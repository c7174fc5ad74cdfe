"""What a config file may say. It follows the schema of Ray Serve where the meaning is the same.

What only Ray knows is accepted and kept, so that one file serves both; reading it warns. Such
fields are those without a rule.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loadshed.serve import _settings
from loadshed.serve._config import rules as must_be
from loadshed.serve._config.rules import SeveralError
from loadshed.serve._config.tree import Wrong, shown
from loadshed.serve._settings import CHECKS, Check

Directory = Annotated[str, BeforeValidator(lambda value: must_be.directory("py_modules", value))]


# What describes the fields: to an editor by the JSON Schema, and to people in `loadshed build`.


def _field(description: str, schema: Mapping[str, Any], default: Any = ...) -> Any:
    return Field(default, description=description, json_schema_extra=dict(schema))


def _for_ray(description: str) -> Any:
    return _field(f"For Ray, no effect on one machine: {description}.", {}, None)


def _type(*names: str, **more: Any) -> dict[str, Any]:
    return {"type": names[0] if len(names) == 1 else list(names), **more}


def _or_infinite(schema: dict[str, Any]) -> dict[str, Any]:
    """YAML can say .inf; in a schema it is the one number above the largest."""
    return {"anyOf": [schema, {"type": "number", "exclusiveMinimum": 1.7976931348623157e308}]}


def _in_any_case(name: str) -> str:
    return "".join(f"[{each}{each.lower()}]" if each.isalpha() else each for each in name)


def _or(schema: dict[str, Any], *others: Any) -> dict[str, Any]:
    return {"anyOf": [*schema.get("anyOf", [schema]), {"enum": list(others)}]}


_SECONDS = _type("number", "null", minimum=0)
_SECONDS_ABOVE_0 = _type("number", "null", exclusiveMinimum=0)
_PART_OF_1 = _type("number", exclusiveMinimum=0, maximum=1)
_SHARES = _type(
    "object",
    "null",
    propertyNames={"pattern": f"^({'|'.join(map(_in_any_case, _settings.CLASSES))})$"},
    additionalProperties=_PART_OF_1,
)
_TEXT = _type("string", minLength=1)
_ROUTE = r"^(/|(/[^/{}]+)+)$"
_ROOT = r"^(/[^/{}]+)*$"
_PART = r"[^\s.:\d][^\s.:]*"  # looser than `_NAME`: JavaScript knows no letters beyond ASCII
_NAMES = rf"{_PART}(\.{_PART})*"
_LOCAL = _type("string", minLength=1, **{"not": {"pattern": "://"}})


def _reference(model: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{model}"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: ClassVar[Mapping[str, Check]] = {}

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: object) -> object:
        return must_be.mapping(cls.__name__, value)

    @field_validator("*", mode="before")
    @classmethod
    def _rule(cls, value: object, info: ValidationInfo) -> object:
        name = str(info.field_name)
        return cls.rules.get(name, must_be.plain)(name, value)

    @classmethod
    def for_ray(cls) -> frozenset[str]:
        """The fields that only Ray knows."""
        return frozenset(cls.model_fields) - frozenset(cls.rules)


class HTTPOptions(_Model):
    """How HTTP is served."""

    host: str = _field("Address to listen at; 0.0.0.0 is every one.", _TEXT, "127.0.0.1")
    port: int = _field(
        "Port to listen at; 0 is any that is free.",
        _type("integer", minimum=0, maximum=65535),
        8000,
    )
    root_path: str = _field(
        "Path at which a proxy in front mounts all of it, and which it strips.",
        _type("string", pattern=_ROOT),
        "",
    )
    request_timeout_s: int | float | None = _field(
        "Seconds that a request may take, waiting included; null is no bound.", _SECONDS, None
    )
    keep_alive_timeout_s: int | float = _field(
        "Seconds that a connection may be idle.", _type("number", minimum=0), 90
    )
    ssl_keyfile: Any = _for_ray("file of the key for HTTPS")
    ssl_certfile: Any = _for_ray("file of the certificate for HTTPS")
    ssl_keyfile_password: Any = _for_ray("password of the key for HTTPS")
    ssl_ca_certs: Any = _for_ray("file of the authorities whose clients are let in")

    rules: ClassVar[Mapping[str, Check]] = {
        "host": must_be.text,
        "port": must_be.port,
        "root_path": must_be.root_path,
        "request_timeout_s": must_be.optional_seconds,
        "keep_alive_timeout_s": must_be.keep_alive,
    }


class RuntimeEnv(_Model):
    """Where the code of an application is found, and the variables that it sees."""

    working_dir: str | None = _field(
        "Directory that the application runs in, and imports from.",
        {"anyOf": [_LOCAL, _type("null")]},
        None,
    )
    py_modules: tuple[Directory, ...] = _field(
        "More directories to import from.", _type("array", items=_LOCAL), ()
    )
    env_vars: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables.",
        json_schema_extra=_type("object", additionalProperties=_type("string")),
    )
    pip: Any = _for_ray("packages to install with pip")
    uv: Any = _for_ray("packages to install with uv")
    conda: Any = _for_ray("the environment of conda")
    container: Any = _for_ray("the container to run in")
    image_uri: Any = _for_ray("the image of the container to run in")
    py_executable: Any = _for_ray("the Python to run")
    java_jars: Any = _for_ray("the archives of Java")
    excludes: Any = _for_ray("what of the directories is not uploaded")
    worker_process_setup_hook: Any = _for_ray("what each process calls first")
    config: Any = _for_ray("how the environment itself is set up")
    nsight: Any = _for_ray("profiling with Nsight")
    rocprof_sys: Any = _for_ray("profiling with rocprof-sys")

    rules: ClassVar[Mapping[str, Check]] = {
        "working_dir": must_be.directory_or_null,
        "py_modules": must_be.listed,
        "env_vars": must_be.variables,
    }


class BackpressureConfig(_Model):
    """How a request is answered over HTTP that is turned away."""

    status_code: int = _field(
        "HTTP status of the answer: 503 or 429.",
        _type("integer", enum=list(_settings.STATUS_CODES)),
        503,
    )
    retry_after_s: int | float | None = _field(
        "Seconds for its header Retry-After; null is the queue's own estimate.", _SECONDS, None
    )

    rules: ClassVar[Mapping[str, Check]] = {
        "status_code": must_be.part_of_backpressure,
        "retry_after_s": must_be.part_of_backpressure,
    }


class DeploymentConfig(_Model):
    """The settings of one deployment. Each that is given counts instead of what the code says."""

    name: str = _field("What the code calls the deployment.", _TEXT)
    num_replicas: int | None = _field("Processes that serve it.", _type("integer", minimum=1), None)
    max_ongoing_requests: int | float | Literal["auto"] | None = _field(
        "Requests that each replica works on at once; auto: it finds how many.",
        _or(_or_infinite(_type("integer", minimum=1)), "auto"),
        None,
    )
    max_queued_requests: int | float | None = _field(
        "Requests that may wait; null is as many as may be worked on, or, by adaptive_lifo, twice "
        "as many; .inf is no bound.",
        _or_infinite(_type("integer", "null", minimum=-1)),
        None,
    )
    max_wait: int | float | None = _field(
        "Seconds that a request may wait for its turn; null is no bound.", _SECONDS, None
    )
    order: Literal["fifo", "adaptive_lifo"] | None = _field(
        "Who of those that wait goes first: fifo, or, where the queue does not get shorter, who "
        "came last: adaptive_lifo; null is adaptive_lifo where max_ongoing_requests is auto.",
        {"enum": [*_settings.ORDERS, None]},
        None,
    )
    shares: dict[str, int | float] | None = _field(
        "The part of what may be worked on that each class of requests gets at least while it has "
        "work; null: the highest class first.",
        _SHARES,
        None,
    )
    max_tenants: int | None = _field(
        "Tenants that are told apart at most.", _type("integer", minimum=1), None
    )
    tenant_share: int | float | None = _field(
        "The part of the queue that one tenant may take in a class.", _PART_OF_1, None
    )
    trust_criticality: bool | None = _field(
        "Whether to believe x-request-criticality, in which callers say how much a request "
        "matters.",
        _type("boolean"),
        None,
    )
    tenant_header: str | None = _field(
        "The header that says whose a request is; null: nobody asks.",
        _type("string", "null", pattern=r"^[\w!#$%&'*+.^`|~-]+$"),
        None,
    )
    request_timeout_s: int | float | None = _field(
        "Seconds that a request may take, waiting included; null is no bound.", _SECONDS, None
    )
    user_config: Any = _field("What its method `reconfigure` is called with.", {}, None)
    health_check_period_s: int | float | None = _field(
        "Seconds between two health checks; null is none.", _SECONDS_ABOVE_0, None
    )
    health_check_timeout_s: int | float | None = _field(
        "Seconds that a health check may take; null is no bound.", _SECONDS_ABOVE_0, None
    )
    graceful_shutdown_timeout_s: int | float | None = _field(
        "Seconds that a replica has to finish its requests when it is stopped; null is no bound.",
        _SECONDS,
        None,
    )
    backpressure_config: BackpressureConfig | None = _field(
        "How a request is answered over HTTP that is turned away.",
        {"anyOf": [_reference("BackpressureConfig"), _type("null")]},
        None,
    )
    autoscaling_config: Any = _for_ray("how the number of replicas follows the load")
    deployment_actors: Any = _for_ray("actors that the replicas share")
    gang_scheduling_config: Any = _for_ray("replicas that are placed together")
    graceful_shutdown_wait_loop_s: Any = _for_ray("seconds between two looks whether it is done")
    logging_config: Any = _for_ray("what is logged")
    max_constructor_retry_count: Any = _for_ray("how often a replica's start is tried")
    max_replicas_per_node: Any = _for_ray("replicas on one node at most")
    max_surge_percent: Any = _for_ray("more replicas while they are replaced")
    placement_group_bundle_label_selector: Any = _for_ray("labels of where the bundles go")
    placement_group_bundles: Any = _for_ray("resources that each replica reserves")
    placement_group_strategy: Any = _for_ray("how the bundles are placed")
    ray_actor_options: Any = _for_ray("resources that each replica needs")
    request_router_config: Any = _for_ray("which replica takes the next request")
    rolling_update_percentage: Any = _for_ray("replicas that are replaced at once")
    version: Any = _for_ray("the version of the code")

    rules: ClassVar[Mapping[str, Check]] = {
        "name": must_be.text,
        **{name: must_be.setting_as_written for name in CHECKS if name != "user_config"},
        "num_replicas": must_be.replicas,
        "shares": must_be.shares,
        "user_config": must_be.plain,
        "backpressure_config": must_be.mapping_or_null,
    }

    def given(self) -> dict[str, Any]:
        """The settings that the file gives, each as `loadshed.serve._settings` has it."""
        fields = self.model_fields_set - {"name"}
        given = {name: getattr(self, name) for name in type(self).model_fields if name in fields}
        if self.backpressure_config is not None:
            backpressure = self.backpressure_config
            given["backpressure_config"] = backpressure.model_dump(exclude_unset=True)
        return _settings.checked(given)


class ApplicationConfig(_Model):
    """One application: where its code is, and what it is served at."""

    name: str = _field("What the application is called; each its own.", _TEXT, "default")
    route_prefix: str | None = _field(
        "Path under which HTTP requests reach it, each its own; null is by handle only.",
        _type("string", "null", pattern=_ROUTE),
        "/",
    )
    import_path: str = _field(
        "Where the code has the application: 'package.module:name'.",
        _type("string", pattern=f"^{_NAMES}:{_NAMES}$"),
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="What the application is built with, where it is a function.",
        json_schema_extra=_type("object"),
    )
    runtime_env: RuntimeEnv = Field(
        default_factory=RuntimeEnv,
        description="Where its code is found, and the variables that it sees.",
        json_schema_extra=_reference("RuntimeEnv"),
    )
    deployments: tuple[DeploymentConfig, ...] = _field(
        "Settings of its deployments; they count instead of those in the code.",
        _type("array", items=_reference("DeploymentConfig")),
        (),
    )
    host: Any = _for_ray("see http_options")
    port: Any = _for_ray("see http_options")
    autoscaling_policy: Any = _for_ray("how the numbers of replicas follow the load")
    external_scaler_enabled: Any = _for_ray("whether something else sets the numbers of replicas")
    logging_config: Any = _for_ray("what is logged")

    rules: ClassVar[Mapping[str, Check]] = {
        "name": must_be.text,
        "route_prefix": must_be.route_prefix,
        "import_path": must_be.import_path,
        "args": must_be.plain_mapping,
        "runtime_env": must_be.mapping,
        "deployments": must_be.listed,
    }

    @field_validator("deployments", mode="after")
    @classmethod
    def _each_its_own_name(cls, value: tuple[DeploymentConfig, ...]) -> object:
        return _without(repeated("name", [each.name for each in value]), value)


class ServeConfig(_Model):
    """A config file: HTTP, and the applications."""

    http_options: HTTPOptions = Field(
        default_factory=HTTPOptions,
        description="How HTTP is served.",
        json_schema_extra=_reference("HTTPOptions"),
    )
    applications: tuple[ApplicationConfig, ...] = _field(
        "All applications that are to run; none stops them all.",
        _type("array", items=_reference("ApplicationConfig")),
    )
    proxy_location: Any = _for_ray("the nodes that take HTTP requests")
    grpc_options: Any = _for_ray("how gRPC is served")
    controller_options: Any = _for_ray("options of the controller")
    logging_config: Any = _for_ray("what is logged")
    tracing_config: Any = _for_ray("what is traced")
    target_capacity: Any = _for_ray("percent of the replicas that are wanted")

    rules: ClassVar[Mapping[str, Check]] = {
        "http_options": must_be.mapping,
        "applications": must_be.listed,
    }

    @field_validator("applications", mode="after")
    @classmethod
    def _each_its_own(cls, value: tuple[ApplicationConfig, ...]) -> object:
        wrong = [
            *repeated("name", [each.name for each in value]),
            *repeated("route_prefix", [each.route_prefix for each in value]),
        ]
        return _without(wrong, value)


PARTS: Mapping[str, type[_Model]] = {
    "http_options": HTTPOptions,
    "applications": ApplicationConfig,
    "runtime_env": RuntimeEnv,
    "deployments": DeploymentConfig,
    "backpressure_config": BackpressureConfig,
}
"""The fields that are models, or lists of them."""


def repeated(name: str, values: list[Any]) -> Iterator[Wrong]:
    """What is wrong where each of these must have a `name` of its own."""
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        if not isinstance(value, str):
            continue
        if value in first:
            other = f"another than that of number {first[value] + 1}"
            message = f"must be {other}, not {shown(value)}."
            yield Wrong((index, name), message)
        first.setdefault(value, index)


def _without(wrong: Any, value: object) -> object:
    found = list(wrong)
    if found:
        raise SeveralError(found)
    return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a config file, with which an editor completes and checks it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_object(ServeConfig),
        "$defs": {model.__name__: _object(model) for model in PARTS.values()},
    }


def _object(model: type[_Model]) -> dict[str, Any]:
    fields = model.model_fields
    return {
        "title": model.__name__,
        "description": model.__doc__,
        "type": "object",
        "properties": {name: _property(name, field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.is_required()],
        "additionalProperties": False,
    }


def _property(name: str, field: Any) -> dict[str, Any]:
    title = name.replace("_", " ").capitalize()
    return {"title": title, "description": field.description, **field.json_schema_extra}
