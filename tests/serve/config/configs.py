"""Config files at random."""

import math
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

slow = hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
"""For a test with these: a large file takes its time to be made up."""

names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=9)
text = st.text(st.characters(codec="utf-8"), max_size=12)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.sampled_from(["yes", "1e5", "0o7", "=", "<<", "2026-01-01", "~", "1:30", "a\n b\n", "#"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
seconds = st.none() | st.integers(0, 999) | st.floats(0, 1e6) | st.just(math.inf)
above_0 = st.none() | st.integers(1, 999) | st.floats(0.1, 1e6) | st.just(math.inf)
directories = st.sampled_from(["code", "/srv/app", "../more", "a b/ü"])
backpressure = st.fixed_dictionaries(
    {}, optional={"status_code": st.sampled_from([503, 429]), "retry_after_s": seconds}
)
settings = {
    "num_replicas": st.integers(1, 99),
    "max_ongoing_requests": st.integers(1, 99) | st.sampled_from([math.inf, "auto"]),
    "max_queued_requests": st.none() | st.integers(-1, 99) | st.just(math.inf),
    "max_wait": seconds,
    "order": st.sampled_from([None, "fifo", "adaptive_lifo"]),
    "shares": st.none()
    | st.dictionaries(
        st.sampled_from(["critical_plus", "Critical", "SHEDDABLE_PLUS", "SHEDDABLE"]),
        st.floats(0.01, 0.25),
    ),
    "max_tenants": st.integers(1, 99),
    "tenant_share": st.floats(0.01, 1) | st.just(1),
    "trust_criticality": st.booleans(),
    "tenant_header": st.none() | st.sampled_from(["x-api-key", "Tenant"]),
    "request_timeout_s": seconds,
    "user_config": plain,
    "health_check_period_s": above_0,
    "health_check_timeout_s": above_0,
    "graceful_shutdown_timeout_s": seconds,
    "backpressure_config": st.none() | backpressure,
}
deployments = st.fixed_dictionaries(
    {"name": names},
    optional={**settings, "autoscaling_config": plain, "ray_actor_options": plain},
)
environments = st.fixed_dictionaries(
    {},
    optional={
        "working_dir": st.none() | directories,
        "py_modules": st.lists(directories, max_size=2),
        "env_vars": st.dictionaries(names.filter(lambda name: "=" not in name), names, max_size=2),
        "pip": plain,
    },
)
prefixes = st.none() | st.sampled_from(["/", "/a", "/a/b-c", "/ü"])
http_options = st.fixed_dictionaries(
    {},
    optional={
        "host": names,
        "port": st.integers(0, 65535),
        "root_path": st.sampled_from(["", "/serve"]),
        "request_timeout_s": seconds,
        "keep_alive_timeout_s": st.integers(0, 99) | st.floats(0, 99),
        "ssl_keyfile": plain,
    },
)


def _name(item: dict[str, Any]) -> Any:
    return item.get("name", "default")


def _route(item: dict[str, Any]) -> Any:
    route = item.get("route_prefix", "/")
    return id(item) if route is None else route


applications = st.fixed_dictionaries(
    {"import_path": st.sampled_from(["module:app", "a.b.c:d.e", "ü:x_1"])},
    optional={
        "name": names,
        "route_prefix": prefixes,
        "args": st.dictionaries(text, plain, max_size=2),
        "runtime_env": environments,
        "deployments": st.lists(deployments, max_size=2, unique_by=_name),
        "host": plain,
    },
)
configs = st.fixed_dictionaries(
    {"applications": st.lists(applications, max_size=2, unique_by=(_name, _route))},
    optional={"http_options": http_options, "proxy_location": plain},
)
"""What `yaml.safe_load` makes of a file without a mistake."""
