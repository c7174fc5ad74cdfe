"""Deployments and applications: what they keep, and that they are found in other processes."""

import functools
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loadshed import ConfigError
from loadshed.serve import Application, BackpressureConfig, Deployment, deployment, ingress
from tests.serve import parts as typed_parts

parts: Any = typed_parts  # to mypy a class that is decorated stays the class


def again(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def test_a_decorator_with_and_without_settings_makes_a_deployment() -> None:
    class Model:
        """Says hello."""

    plain = deployment(Model)
    assert (plain.func_or_class, plain.name, plain.given) == (Model, "Model", {})
    assert plain.__doc__ == "Says hello."
    assert (plain.__module__, plain.__qualname__) == (__name__, Model.__qualname__)
    assert repr(plain) == "<Deployment 'Model'>"
    made = deployment(name="m", num_replicas=2, max_queued_requests=-1)(Model)
    assert made.name == "m"
    assert made.given == {"num_replicas": 2, "max_queued_requests": float("inf")}
    assert deployment()(Model).name == "Model"


def test_one_decorator_may_make_several() -> None:
    decorate = deployment(num_replicas=2)
    one, other = decorate(parts.Plain), decorate(parts.pid)
    one.given["num_replicas"] = 3
    assert other.given == {"num_replicas": 2}


def test_an_object_that_can_be_called_is_called_like_its_class() -> None:
    one = deployment(parts.application)
    assert one.name == "Application"
    assert one.__module__ == "tests.serve.parts"
    assert deployment(functools.partial(parts.pid)).name == "partial"


@pytest.mark.parametrize("wrong", [3, "Model", parts.Model, [parts.Plain]])
def test_what_is_no_class_or_function_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="func_or_class must be a class or function, not "):
        deployment(wrong)
    with pytest.raises(ConfigError, match="func_or_class"):
        deployment(num_replicas=1)(wrong)


def test_a_wrong_setting_is_told_of_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match="num_replicas"):
        deployment(num_replicas=0)
    with pytest.raises(ConfigError, match="did you mean 'num_replicas'"):
        parts.Model.options(num_replica=1)


@pytest.mark.parametrize("name", ["", 3, "a#b", b"x"])
def test_a_name_is_a_string_that_can_be_told_from_the_number_of_a_replica(name: Any) -> None:
    with pytest.raises(ConfigError, match="name must be a string that is not empty, without '#'"):
        deployment(name=name)(parts.Plain)
    with pytest.raises(ConfigError, match="name must be"):
        parts.Model.options(name=name)


def test_options_change_what_is_given_and_leave_the_rest_and_the_original() -> None:
    one = deployment(num_replicas=2, max_wait=3.0)(parts.Plain)
    other = one.options(num_replicas=5, backpressure_config={"status_code": 429})
    assert other.name == one.name
    assert other.func_or_class is one.func_or_class
    assert other.given == {
        "num_replicas": 5,
        "max_wait": 3.0,
        "backpressure_config": BackpressureConfig(status_code=429),
    }
    assert one.given == {"num_replicas": 2, "max_wait": 3.0}
    assert one.options(name="else").name == "else"


def test_what_is_bound_keeps_its_arguments() -> None:
    bound = parts.Model.bind(1, [2], self=3, name=4)
    assert isinstance(bound, Application)
    assert bound.deployment is parts.Model
    assert (bound.args, bound.kwargs) == ((1, [2]), {"self": 3, "name": 4})
    assert repr(bound) == "<Application of <Deployment 'Model'>>"


def test_a_function_is_bound_without_arguments() -> None:
    assert parts.double.bind().args == ()
    for args, kwargs in (((1,), {}), ((), {"x": 1})):
        with pytest.raises(ConfigError, match="bind must be called without arguments for a func"):
            parts.double.bind(*args, **kwargs)


def test_a_deployment_that_is_called_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"'Model' can't be called: `Model\.bind\(\.\.\.\)`"):
        parts.Model(3)


def test_a_deployment_is_found_again_by_its_name() -> None:
    for one in (parts.Model, parts.renamed, parts.double):
        found = again(one)
        assert type(found) is Deployment
        assert (found.func_or_class, found.name, found.given) == (
            one.func_or_class,
            one.name,
            one.given,
        )


def test_one_whose_code_is_no_deployment_itself_is_found_as_well() -> None:
    for code in (parts.Plain, parts.Plain.Inner, parts.pid):
        made = deployment(name="x", num_replicas=3)(code)
        found = again(made)
        assert (found.func_or_class, found.name, found.given) == (code, "x", {"num_replicas": 3})


def test_an_application_is_found_again_with_what_it_is_made_with() -> None:
    inner = parts.Model.bind(2)
    outer = again(parts.renamed.bind(inner, {"a": [inner]}))
    assert outer.deployment.name == "Renamed"
    assert outer.args[0] is outer.args[1]["a"][0]
    assert outer.args[0].args == (2,)


def test_another_process_imports_the_code() -> None:
    script = (
        "import pickle, sys; print(pickle.load(sys.stdin.buffer).args[0].deployment.func_or_class)"
    )
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script],
        input=pickle.dumps(parts.renamed.bind(parts.Model.bind(1))),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout == b"<class 'tests.serve.parts.Model'>\n"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: deployment(ingress(parts.application)()), id="an object"),
        pytest.param(lambda: deployment(ingress(parts.asgi)()), id="a function"),
    ],
)
def test_an_application_without_a_class_is_found_again_with_its_ingress(make: Any) -> None:
    """`run(deployment(ingress(app)()).bind())` pickles it."""
    made = make()
    found = again(made)
    assert (
        found.func_or_class.__loadshed_application__ is made.func_or_class.__loadshed_application__
    )


def test_the_class_of_an_application_is_not_mistaken_for_that_of_its_framework() -> None:
    from fastapi import FastAPI  # noqa: PLC0415

    made = deployment(ingress(FastAPI())())
    try:
        found = again(made)
    except Exception:  # noqa: BLE001 - to say so would be all right, too
        return
    assert found.func_or_class is not FastAPI


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(parts.Application(), id="an object of no module"),
        pytest.param(functools.partial(parts.pid), id="a partial"),
        pytest.param(lambda: 3, id="a lambda"),
    ],
)
def test_what_can_not_be_found_again_is_not_pickled_either(code: Any) -> None:
    """So `run` says it at once: its `ConfigError` speaks of code at the top level of modules."""
    with pytest.raises(Exception, match=r".+"):
        pickle.dumps(deployment(code))


def test_one_of_the_main_script_is_found_where_that_has_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a replica the program is imported by the name `__main__` all the same."""
    main = ModuleType("__main__")
    main.Model = deployment(parts.Plain)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    data = pickle.dumps(Deployment(parts.Plain, "Model", {"num_replicas": 2}))
    monkeypatch.setattr(main, "Model", deployment(parts.Plain))
    found = pickle.loads(data)  # noqa: S301
    assert found.func_or_class is parts.Plain
    assert found.given == {"num_replicas": 2}


def _of(main: ModuleType) -> Any:
    return type("Model", (), {"__module__": main.__name__, "__qualname__": "Model"})


def test_what_is_given_is_plain_and_travels() -> None:
    one = parts.Model.options(
        user_config={"a": 1}, backpressure_config={"status_code": 429}, ray_actor_options={"x": 1}
    )
    assert again(one).given == one.given
