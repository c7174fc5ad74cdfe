"""When a replica counts as unhealthy."""

from loadshed._policy.health import Health


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
