"""Settings of the tests of the engine."""

from hypothesis import HealthCheck, settings

# Examples run a network on machines that may be busy: a slow one is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
