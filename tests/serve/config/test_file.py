"""Reading a config file: what is right in it, and all that is wrong, each with its line."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loadshed import ConfigError
from loadshed.serve._config import file, tree
from loadshed.serve._config.file import ConfigFileError, Mistake, from_plain, parse, read
from loadshed.serve._config.tree import DEEPEST, MOST_VALUES
from tests.serve.config.configs import configs, plain, slow

Place = tuple[str | int, ...]

FILE = """\
proxy_location: EveryNode
http_options: {port: 8001}
applications:
- name: app1
  route_prefix: /one
  import_path: module:app
  args: {key: value}
  runtime_env:
    working_dir: code
    py_modules: [more, /srv/lib]
    env_vars: {NAME: value}
    pip: [torch]
    config: {}
  deployments:
  - name: Model
    max_ongoing_requests: .inf
    max_queued_requests: -1
    ray_actor_options: {num_cpus: 2}
- import_path: module:other
  route_prefix: null
"""


def mistakes(text: str) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigFileError) as caught:
        parse(text)
    return caught.value.mistakes


def in_application(line: str) -> str:
    return f"applications:\n- import_path: module:app\n  {line}"


def in_deployment(line: str) -> str:
    return in_application(f"deployments:\n  - name: Model\n    {line}")


def in_http(line: str) -> str:
    return f"applications: []\nhttp_options:\n  {line}"


APP = "applications[0]"
DEPLOYMENT = f"{APP}.deployments[0]"
CLASSES = "CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE"
SECONDS = "must be a number of seconds >= 0, or null, not"
PATH = "must be '/', or a path like '/app'"
PLAIN = "must be a string, a number, true, false, null, a list or a mapping"

WRONG = [
    # The file as a whole.
    ("", "", 1, "is empty: it must have `applications`"),
    ("# nothing\n", "", 1, "is empty"),
    ("null", "", 1, "must be a mapping, not null."),
    ("- a", "", 1, "must be a mapping, not ['a']."),
    ("just text", "", 1, "must be a mapping, not 'just text'."),
    ("a: [", "", 1, "is not YAML: while parsing a flow node, expected the node content"),
    ("\na:\n\t- b", "", 3, "is not YAML: while scanning for the next token"),
    ("a: b\n c: d: e", "", 2, "is not YAML: mapping values are not allowed here."),
    ("a: *b", "", 1, "is not YAML: found undefined alias 'b'."),
    ("a: 1\n---\nb: 1", "", 2, "found another document."),
    ("%YAML 9999999999999.1\n---\n", "", 1, "is not YAML: "),
    ('a: "\\UFFFFFFFF"', "", 1, "is not YAML: "),
    ("a\nb\0", "", 2, "has a character that YAML has not"),
    ("[" * 5000, "", 1, "more than 64 levels"),
    ("a: " + "[" * 70 + "]" * 70, "", 1, "more than 64 levels"),
    ("{}", "applications", 1, "is missing."),
    ("{1: 2, applications: []}", "", 1, "has a key that must be a string (in quotes), not 1."),
    ("applications: []\n? [a]\n: b", "", 2, "not a list or a mapping."),
    ("applications: []\n? {a: b}\n: b", "", 2, "not a list or a mapping."),
    ("applications: []\nyes: 1", "", 2, "must be a string (in quotes), not true."),
    ("applications: []\n2026-01-01: 1", "", 2, "has a key that must be"),
    ("applications: []\napplication: []", "application", 2, "(did you mean 'applications'?)"),
    ("applications: []\nqqq: []", "qqq", 2, "is no field here."),
    ("applications: []\n'a b': []", "['a b']", 2, "is no field here."),
    ("applications: []\n\napplications: []", "applications", 3, "is given twice: first in line 1"),
    ("applications: {}", "applications", 1, "must be a list, not {}."),
    ("applications:", "applications", 1, "must be a list, not null."),
    ("applications:\n- app", APP, 2, "must be a mapping, not 'app'."),
    ("applications: []\nproxy_location: .nan", "proxy_location", 2, "must be a finite number"),
    # What is not data.
    (in_application("args: !!python/object:os.system {}"), f"{APP}.args", 3, f"{PLAIN}: the tag"),
    (in_application("args: {a: !!binary YQ==}"), f"{APP}.args.a", 3, "the tag 'binary' is refused"),
    (in_application("args: {a: !!set {b}}"), f"{APP}.args.a", 3, "the tag 'set' is refused."),
    (in_application("args: {a: !local x}"), f"{APP}.args.a", 3, "the tag '!local' is refused."),
    (in_application("args: {a: !!map [b]}"), f"{APP}.args.a", 3, "the tag 'map' is refused."),
    (in_application("args: {a: !!str [b]}"), f"{APP}.args.a", 3, "the tag 'str' is refused."),
    (in_application("args: {a: !!int b}"), f"{APP}.args.a", 3, "must be a valid int, not 'b'."),
    (in_application("args: {a: !!bool b}"), f"{APP}.args.a", 3, "must be a valid bool, not 'b'."),
    (in_application(f"args: {{a: {'9' * 5000}}}"), f"{APP}.args.a", 3, "a valid int, not '999"),
    (in_application(f"args: {{a: 0x{'9' * 500}}}"), f"{APP}.args.a", 3, "at most 300 digits."),
    (in_application("args: {a: 2026-01-01}"), f"{APP}.args.a", 3, "not the date 2026-01-01 (put"),
    (in_application("args: {a: [0, .nan]}"), f"{APP}.args.a[1]", 3, "a finite number, not .nan."),
    (in_application("args: {a: -.inf}"), f"{APP}.args.a", 3, "a finite number, not -inf."),
    (in_application('args: {a: "\\ud800"}'), f"{APP}.args.a", 3, "must be valid Unicode, not"),
    (in_application("args: {'x y': .inf}"), f"{APP}.args['x y']", 3, "a finite number"),
    (in_application("args: &a\n    b: *a"), f"{APP}.args.b", 3, "must not contain itself."),
    (in_application("args: {<<: 3}"), f"{APP}.args", 3, "must merge (<<) a mapping, or a list of"),
    (in_application("args: {<<: [{a: 1}, b]}"), f"{APP}.args", 3, "must merge (<<) a mapping"),
    (in_application("args: {1: 2}"), f"{APP}.args", 3, "has a key that must be a string"),
    (
        in_application("args: {a: 1,\n    a: 2}"),
        f"{APP}.args.a",
        4,
        "is given twice: first in line",
    ),
    # Applications.
    ("applications:\n- name: app", f"{APP}.import_path", 2, "is missing."),
    (in_application("nmae: app"), f"{APP}.nmae", 3, "is no field here (did you mean 'name'?)."),
    (in_application("name: ''"), f"{APP}.name", 3, "must be a string of printable characters"),
    (in_application("name: 3"), f"{APP}.name", 3, "and not empty, not 3."),
    (in_application('name: "a\\nb"'), f"{APP}.name", 3, "and not empty, not 'a\\nb'."),
    (in_application("route_prefix: app"), f"{APP}.route_prefix", 3, PATH),
    (in_application("route_prefix: ''"), f"{APP}.route_prefix", 3, PATH),
    (in_application("route_prefix: /app/"), f"{APP}.route_prefix", 3, PATH),
    (in_application("route_prefix: //app"), f"{APP}.route_prefix", 3, PATH),
    (in_application("route_prefix: '/{app}'"), f"{APP}.route_prefix", 3, PATH),
    (in_application("route_prefix: 3"), f"{APP}.route_prefix", 3, "or null, not 3."),
    ("applications: [{import_path: app}]", f"{APP}.import_path", 1, "like 'package.module:name'"),
    ("applications: [{import_path: 'a:b:c'}]", f"{APP}.import_path", 1, ", not 'a:b:c'."),
    ("applications: [{import_path: 'a..b:c'}]", f"{APP}.import_path", 1, ", not 'a..b:c'."),
    ("applications: [{import_path: null}]", f"{APP}.import_path", 1, ", not null."),
    (in_application("args: [a]"), f"{APP}.args", 3, "must be a mapping, not ['a']."),
    (in_application("args:"), f"{APP}.args", 3, "must be a mapping, not null."),
    (in_application("runtime_env: code"), f"{APP}.runtime_env", 3, "must be a mapping, not 'code'"),
    (in_application("deployments: {}"), f"{APP}.deployments", 3, "must be a list, not {}."),
    (in_application("deployments: [3]"), f"{APP}.deployments[0]", 3, "must be a mapping, not 3."),
    (
        "applications:\n- import_path: a:b\n- import_path: a:b\n  route_prefix: /b",
        "applications[1].name",
        3,
        "must be another than that of number 1, not 'default'.",
    ),
    (
        "applications:\n- {import_path: 'a:b', name: a}\n-\n  import_path: a:b\n  route_prefix: /",
        "applications[1].route_prefix",
        5,
        "must be another than that of number 1, not '/'.",
    ),
    # Environments.
    *(
        (in_application(f"runtime_env:\n    {line}"), f"{APP}.runtime_env.{where}", 4, message)
        for line, where, message in [
            ("working_dri: a", "working_dri", "is no field here (did you mean 'working_dir'?)."),
            ("working_dir: 3", "working_dir", "must be a local directory, not 3."),
            ("working_dir: ''", "working_dir", "must be a local directory, not ''."),
            ("working_dir: s3://a/b.zip", "working_dir", "a local directory; download it first"),
            ("py_modules: code", "py_modules", "must be a list, not 'code'."),
            ("py_modules: [a, 'gs://b']", "py_modules[1]", "download it first, not 'gs://b'."),
            ("env_vars: [A=b]", "env_vars", "must be a mapping, not ['A=b']."),
            ("env_vars: {A: b, B: 1}", "env_vars.B", "must be a string (in quotes) without NUL"),
            ("env_vars: {A: yes}", "env_vars.A", "without NUL, not true."),
            ('env_vars: {A: "\\0"}', "env_vars.A", "without NUL, not '\\x00'."),
            ("env_vars: {A=: b}", "env_vars['A=']", "must be a name without '=' and NUL"),
            ("env_vars: {'': b}", "env_vars['']", "and not empty, not ''."),
            ("pip: 2026-01-01", "pip", "not the date 2026-01-01"),
        ]
    ),
    # Deployments.
    (in_application("deployments: [{}]"), f"{DEPLOYMENT}.name", 3, "is missing."),
    (
        in_deployment("max_wait: 1\n  - name: Model"),
        f"{APP}.deployments[1].name",
        6,
        "must be another than that of number 1, not 'Model'.",
    ),
    *(
        (in_deployment(line), f"{DEPLOYMENT}.{where}", 5, message)
        for line, where, message in [
            ("num_replica: 2", "num_replica", "is no field here (did you mean 'num_replicas'?)."),
            ("num_replicas: two", "num_replicas", "must be a whole number >= 1, not 'two'."),
            ("num_replicas: auto", "num_replicas", ">= 1: nothing scales it on one machine, not"),
            ("num_replicas: 0", "num_replicas", "must be a whole number >= 1, not 0."),
            ("num_replicas: true", "num_replicas", "must be a whole number >= 1, not true."),
            ("num_replicas: .inf", "num_replicas", "must be a whole number >= 1, not .inf."),
            ("num_replicas:", "num_replicas", "must be a whole number >= 1, not null."),
            ("max_ongoing_requests: 1.5", "max_ongoing_requests", ", or .inf, or 'auto', not 1.5."),
            ("max_ongoing_requests: -1", "max_ongoing_requests", ", or .inf, or 'auto', not -1."),
            ("max_queued_requests: -2", "max_queued_requests", ">= 0, or .inf, not -2."),
            ("max_queued_requests: inf", "max_queued_requests", ">= 0, or .inf, not 'inf'."),
            ("order: lifo", "order", "must be 'fifo' or 'adaptive_lifo', or null, not 'lifo'."),
            ("shares: 1", "shares", f"must be a mapping of {CLASSES} to parts above 0,"),
            ("shares: {URGENT: 1}", "shares.URGENT", f"must be one of {CLASSES}."),
            ("shares: {sheddible: 1}", "shares.sheddible", " (did you mean 'SHEDDABLE'?)."),
            ("shares: {critical: 2}", "shares.critical", "above 0, and 1 at most, not 2."),
            ("shares: {CRITICAL: .8, SHEDDABLE: .8}", "shares", "together 1 at most, or null, not"),
            ("shares: {CRITICAL: .1, critical: .2}", "shares", "together 1 at most, or null, not"),
            ("max_tenants: 0", "max_tenants", "must be a whole number >= 1, not 0."),
            ("max_tenants: .inf", "max_tenants", "must be a whole number >= 1, not .inf."),
            ("tenant_share: 0", "tenant_share", "must be a number above 0, and 1 at most, not 0."),
            ("trust_criticality: 1", "trust_criticality", "must be true or false, not 1."),
            ("tenant_header: a b", "tenant_header", "the name of a header, or null, not 'a b'."),
            ("max_wait: soon", "max_wait", f"{SECONDS} 'soon'."),
            ("max_wait: -1", "max_wait", f"{SECONDS} -1."),
            ("max_wait: .nan", "max_wait", f"{SECONDS} .nan."),
            ("max_wait: false", "max_wait", f"{SECONDS} false."),
            ("request_timeout_s: [1]", "request_timeout_s", f"{SECONDS} [1]."),
            ("health_check_period_s: 0", "health_check_period_s", "seconds > 0, or null, not 0."),
            ("health_check_timeout_s: x", "health_check_timeout_s", "> 0, or null, not 'x'."),
            ("graceful_shutdown_timeout_s: {}", "graceful_shutdown_timeout_s", f"{SECONDS} {{}}."),
            ("user_config: {a: .inf}", "user_config.a", "must be a finite number, not .inf."),
            ("backpressure_config: 503", "backpressure_config", "a mapping, or null, not 503."),
            ("backpressure_config: {status_code: 500}", "backpressure_config.status_code", "429"),
            ("backpressure_config: {code: 429}", "backpressure_config.code", "is no field here."),
            ("backpressure_config: {retry_after_s: x}", "backpressure_config.retry_after_s", "'x'"),
        ]
    ),
    # HTTP.
    ("applications: []\nhttp_options:", "http_options", 2, "must be a mapping, not null."),
    *(
        (in_http(line), f"http_options.{where}", 3, message)
        for line, where, message in [
            ("prot: 80", "prot", "is no field here (did you mean 'port'?)."),
            ("host: ''", "host", "must be a string of printable characters, and not empty, not ''"),
            ("port: 65536", "port", "must be a whole number from 0 to 65535, not 65536."),
            ("port: true", "port", "must be a whole number from 0 to 65535, not true."),
            ("port: '80'", "port", "must be a whole number from 0 to 65535, not '80'."),
            ("root_path: /", "root_path", "must be '', or a path like '/serve'"),
            ("root_path: serve", "root_path", ", not 'serve'."),
            ("root_path: null", "root_path", ", not null."),
            ("request_timeout_s: -1", "request_timeout_s", f"{SECONDS} -1."),
            ("keep_alive_timeout_s: null", "keep_alive_timeout_s", "a number >= 0, not null."),
            ("keep_alive_timeout_s: .inf", "keep_alive_timeout_s", "a number >= 0, not .inf."),
        ]
    ),
]


@pytest.mark.parametrize(("text", "where", "line", "message"), WRONG)
def test_a_mistake_tells_its_place_its_line_and_what_there_must_be(
    text: str, where: str, line: int, message: str
) -> None:
    (mistake,) = mistakes(text)
    assert (mistake.where, mistake.line) == (where, line)
    assert message in mistake.message
    assert mistake.column is not None


def test_all_mistakes_are_told_in_the_order_of_the_file() -> None:
    text = """\
applications:
- name: a
  1: 2
  import_path: a
  deployments:
  - num_replicas: two
    max_wiat: 3
- name: a
  import_path: a:b
  args: [.inf, !!set {a}]
- 3
http_options: {port: x, host: 1}
"""
    found = mistakes(text)
    assert [(each.where, each.line, each.column) for each in found] == [
        ("applications[0]", 3, 3),
        ("applications[0].import_path", 4, 16),
        ("applications[0].deployments[0].name", 6, 5),
        ("applications[0].deployments[0].num_replicas", 6, 19),
        ("applications[0].deployments[0].max_wiat", 7, 5),
        ("applications[1].route_prefix", 8, 3),
        ("applications[1].name", 8, 9),
        ("applications[1].args", 10, 9),
        ("applications[1].args[1]", 10, 16),
        ("applications[2]", 11, 3),
        ("http_options.port", 12, 22),
        ("http_options.host", 12, 31),
    ]


def test_a_share_that_is_wrong_is_told_in_its_own_line() -> None:
    text = in_deployment("shares:\n      CRITICAL: 0.5\n      SHEDABLE: 0.1\n      sheddable: -1")
    found = [(each.where.removeprefix(f"{DEPLOYMENT}."), each.line) for each in mistakes(text)]
    assert found == [("shares.SHEDABLE", 7), ("shares.sheddable", 8)]


def test_an_error_reads_like_a_compiler() -> None:
    text = in_deployment("num_replicas: two\n    max_wait: -1")
    with pytest.raises(ConfigFileError) as caught:
        parse(text, source="config.yaml")
    assert str(caught.value) == (
        f"config.yaml:5:19: {DEPLOYMENT}.num_replicas must be a whole number >= 1, not 'two'.\n"
        f"config.yaml:6:15: {DEPLOYMENT}.max_wait {SECONDS} -1."
    )
    assert isinstance(caught.value, ConfigError)
    assert caught.value.setting == f"{DEPLOYMENT}.num_replicas"


def test_an_error_can_be_pickled() -> None:
    with pytest.raises(ConfigFileError) as caught:
        parse("applications: [3]\nx: 1", source="config.yaml")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert again.mistakes == caught.value.mistakes
    assert str(again) == str(caught.value)


def test_a_mistake_without_a_line_tells_what_it_knows() -> None:
    assert str(Mistake("is wrong.")) == "the config is wrong."
    assert str(Mistake("is wrong.", "a.b", source="x")) == "x: a.b is wrong."


def test_a_long_value_is_shortened() -> None:
    (mistake,) = mistakes(in_deployment(f"max_wait: {'long' * 100}"))
    assert len(mistake.message) < 150
    assert mistake.message.endswith("longlong....")


def test_a_few_lines_that_expand_to_gigabytes_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (mistake,) = mistakes("\n".join(lines))
    assert str(MOST_VALUES) in mistake.message


def test_merges_that_expand_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_VALUES", 1000)
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    assert "at most 1000 values" in mistakes("\n".join(lines))[0].message


def test_too_many_values_are_refused_without_aliases_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_VALUES", 1000)
    assert "is not YAML: more than" in mistakes("[" + "0," * 1000 + "]")[0].message
    with pytest.raises(ConfigFileError, match="at most 1000 values"):
        from_plain([0] * 1000)


def test_aliases_do_not_make_it_deeper_than_it_may_be() -> None:
    half = DEEPEST - 10
    text = f"x: &a {'[' * half}{']' * half}\ny: {'[' * half}*a{']' * half}"
    places = [(each.where[:1], each.message) for each in mistakes(text)]
    assert ("y", f"must have at most {DEEPEST} levels.") in places


def test_anchors_and_merges_are_fine() -> None:
    text = """\
applications:
- import_path: a:b
  deployments:
  - &one {name: One, num_replicas: 2, max_wait: 1, user_config: &config {a: [1, =, "<<"]}}
  - {<<: *one, name: Two, max_wait: 3}
  - {<<: [{max_wait: 5}, *one], name: Three}
  - {name: Four, user_config: *config}
"""
    one, two, three, four = parse(text).config.applications[0].deployments
    assert (two.num_replicas, two.max_wait) == (2, 3)
    assert (three.num_replicas, three.max_wait) == (2, 5)
    assert one.user_config == four.user_config == {"a": [1, "=", "<<"]}


def test_what_is_merged_is_where_it_was_written() -> None:
    text = """\
applications:
- import_path: a:b
  deployments:
  - &one
    name: One
    max_wait: soon
  - <<: *one
    name: Two
"""
    assert [(each.where, each.line) for each in mistakes(text)] == [
        (f"{DEPLOYMENT}.max_wait", 6),
        (f"{APP}.deployments[1].max_wait", 6),
    ]


def test_what_has_no_effect_here_warns_and_is_kept() -> None:
    found = parse(FILE, source="config.yaml")
    none = "has no effect here: it is for Ray Serve."
    assert [str(each) for each in found.warnings] == [
        f"config.yaml:1:1: proxy_location {none}",
        (
            f"config.yaml:12:5: {APP}.runtime_env.pip is not installed here: "
            "install it into the environment of loadshed."
        ),
        f"config.yaml:13:5: {APP}.runtime_env.config {none}",
        (
            f"config.yaml:17:26: {DEPLOYMENT}.max_queued_requests is -1, "
            "Ray's spelling of no bound: .inf says it plainly."
        ),
        f"config.yaml:18:5: {DEPLOYMENT}.ray_actor_options {none}",
    ]
    assert found.config.proxy_location == "EveryNode"
    assert found.config.applications[0].runtime_env.pip == ["torch"]
    assert found.config.applications[0].deployments[0].ray_actor_options == {"num_cpus": 2}


def test_no_bound_spelled_out_does_not_warn() -> None:
    assert parse(in_deployment("max_queued_requests: .inf")).warnings == ()


def test_a_read_file_has_paths_from_its_own_folder_on(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    found = read(str(path))
    first, second = found.config.applications
    assert first.runtime_env.working_dir == str(tmp_path / "code")
    assert first.runtime_env.py_modules == (str(tmp_path / "more"), "/srv/lib")
    assert second.runtime_env.working_dir is None
    assert "runtime_env" not in second.model_fields_set
    assert found.warnings[0].source == str(path)


def test_each_kind_of_path_is_made_absolute_by_itself(tmp_path: Path) -> None:
    for line in ("working_dir: code", "py_modules: [code]"):
        config = parse(in_application(f"runtime_env: {{{line}}}"), base=tmp_path).config
        env = config.applications[0].runtime_env
        assert str(tmp_path / "code") in (env.working_dir, *env.py_modules)
        assert len(env.model_fields_set) == 1


def test_a_relative_file_has_absolute_paths_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(FILE)
    env = read("config.yaml").config.applications[0].runtime_env
    assert env.working_dir == str(tmp_path / "code")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "can't be read: No such file or directory."),
        (lambda path: path.mkdir(), "can't be read: Is a directory."),
        (lambda path: path.write_bytes(b"a: \xff"), "must be UTF-8, and is not from byte 3 on."),
    ],
)
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "config.yaml"
    make(path)
    with pytest.raises(ConfigFileError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: the config {message}"


def test_a_path_that_there_cannot_be_says_so() -> None:
    with pytest.raises(ConfigFileError, match="can't be read: embedded null byte"):
        read("a\0b")


def test_a_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("applications: []")
    monkeypatch.setattr(file, "LARGEST", 16)
    assert read(path).config.applications == ()
    monkeypatch.setattr(file, "LARGEST", 15)
    with pytest.raises(ConfigFileError, match="must have at most 15 bytes"):
        read(path)


def test_a_byte_order_mark_and_windows_lines_are_fine() -> None:
    assert parse("\ufeff" + FILE.replace("\n", "\r\n")).config == parse(FILE).config


def test_plain_data_is_held_to_the_same_rules() -> None:
    value = {
        "http_options": {"port": -1},
        "applications": [{"import_path": "a", "args": {"a": {1, 2}, "b": {3: 4}}}, 3],
    }
    with pytest.raises(ConfigFileError) as caught:
        from_plain(value, source="socket")
    assert str(caught.value) == (
        "socket: http_options.port must be a whole number from 0 to 65535, not -1.\n"
        f"socket: {APP}.import_path must be like 'package.module:name', not 'a'.\n"
        f"socket: {APP}.args.a {PLAIN}, not of the type set.\n"
        f"socket: {APP}.args.b has a key that must be a string (in quotes), not 3.\n"
        "socket: applications[1] must be a mapping, not 3."
    )


def test_plain_data_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ConfigFileError, match="must not contain itself"):
        from_plain({"applications": value})
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ConfigFileError, match="at most 64 levels"):
        from_plain({"applications": deep})


def test_infinity_comes_over_json_as_a_word() -> None:
    value = {"import_path": "a:b", "deployments": [{"name": "M", "max_ongoing_requests": ".inf"}]}
    found = from_plain({"applications": [value], "http_options": {"request_timeout_s": ".inf"}})
    assert found.config.applications[0].deployments[0].max_ongoing_requests == math.inf
    assert found.config.http_options.request_timeout_s is None


@slow
@given(configs)
def test_a_right_file_is_read(value: dict[str, Any]) -> None:
    found = parse(yaml.safe_dump(value, sort_keys=False))
    assert found.config == from_plain(value).config
    assert len(found.config.applications) == len(value["applications"])


def places(value: Any, at: Place = ()) -> list[Place]:
    """Every place in it whose value there are rules for."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for name, each in inner:
        found.append((*at, name))
        if name not in ("args", "user_config", "env_vars", "py_modules", *FREE):
            found += places(each, (*at, name)) if isinstance(each, dict | list) else []
    return found


FREE = ("host", "pip", "ssl_keyfile", "proxy_location", "autoscaling_config", "ray_actor_options")


def as_where(place: Place) -> str:
    return "".join(f".{each}" if isinstance(each, str) else f"[{each}]" for each in place)[1:]


@slow
@given(configs, st.data())
def test_a_wrong_value_anywhere_is_told_with_its_place_and_line(
    value: dict[str, Any], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from(places(value)))
    holder: Any = value
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = "MARKER"
    lines = yaml.safe_dump(value, sort_keys=False).splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "MARKER" in text)
    lines[line - 1] = lines[line - 1].replace("MARKER", "!!set {}")
    assert (as_where(place), line) in [(m.where, m.line) for m in mistakes("\n".join(lines))]


@given(st.text() | st.text("[]{}:,-?&*!|>'\"% \n\tab<1.~#@`\\xU0"))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    assert told_by(lambda: parse(text)) != ""


@slow
@given(configs, st.data())
def test_no_data_at_all_raises_anything_else(value: dict[str, Any], data: st.DataObject) -> None:
    anything = plain | st.floats() | st.dates() | st.binary() | st.sets(st.integers())
    place = data.draw(st.sampled_from(places(value)))
    holder: Any = value
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = data.draw(anything)
    by_file = told_by(lambda: parse(yaml.safe_dump(value)))
    by_socket = told_by(lambda: from_plain(value))
    assert (by_file is None) == (by_socket is None)


def told_by(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ConfigFileError as error:
        return json.dumps(str(error))
    return None


def test_a_mistake_that_is_found_later_has_the_line_of_what_is_nearest() -> None:
    text = "applications:\n- import_path: a:b\n  deployments:\n  - name: M\n"
    found = parse(text, source="x.yaml")
    places = ["applications[0].deployments[0].user_config.x", "applications[0].nothing", "other"]
    located = [*found.located(Mistake("is wrong.", place) for place in places)]
    assert [(each.source, each.line, each.column) for each in located] == [
        ("x.yaml", 4, 5),
        ("x.yaml", 2, 3),
        ("x.yaml", 1, 1),
    ]
