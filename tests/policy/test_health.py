"""When a replica counts as unhealthy."""

from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.health import Health


@given(st.lists(st.booleans(), max_size=20))
def test_it_is_unhealthy_when_the_last_three_checks_failed(checks: list[bool]) -> None:
    health = Health()
    assert health.is_unhealthy is False
    for done, passed in enumerate(checks, 1):
        (health.passed if passed else health.failed)()
        assert health.is_unhealthy is (checks[:done][-3:] == [False] * 3)


def test_three_failures_in_a_row_and_not_fewer() -> None:
    health = Health()
    for step, unhealthy in ((False, False), (False, False), (True, False), (False, False)):
        (health.passed if step else health.failed)()
        assert health.is_unhealthy is unhealthy
    seen = []
    for change in (health.failed, health.failed, health.passed):
        change()
        seen.append(health.is_unhealthy)
    assert seen == [False, True, False]
