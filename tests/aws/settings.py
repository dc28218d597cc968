"""Knobs of the strict fake: how fast its clock runs and how low its quotas are.

Why: real AWS takes minutes where a test has seconds, and its quotas are too high
to reach in a test. Every knob has an environment variable (its value at start and
after each reset) and can be changed while running by `POST /_world/settings`.
"""

import os
import time
from typing import Any

# name -> (environment variable, default, type, what it means)
KNOBS: dict[str, tuple[str, Any, type, str]] = {
    "initial_s": ("ELB_INITIAL_S", 0.2, float, "seconds a target stays `initial`"),
    "drain_scale": ("ELB_DRAIN_SCALE", 0.01, float, "deregistration delay is multiplied by this"),
    "lag_s": ("ELB_LAG_S", 0.0, float, "DescribeRules answers as of this long ago"),
    "linger_s": ("ELB_LINGER_S", 0.0, float, "a target group stays ResourceInUse this long after its last rule"),
    "max_rules": ("ELB_MAX_RULES", 100, int, "rules per load balancer, default rules not counted"),
    "max_tgs": ("ELB_MAX_TGS", 100, int, "unique target groups per load balancer"),
    "max_region_tgs": ("ELB_MAX_REGION_TGS", 3000, int, "target groups per region"),
    "max_targets": ("ELB_MAX_TARGETS", 1000, int, "targets per target group"),
    "date_shift_s": ("ELB_DATE_SHIFT_S", 0.0, float, "the `Date` of answers is off by this"),
    "page_cap": ("ELB_PAGE_CAP", 400, int, "most items in a page, whatever PageSize asks for"),
}


class Settings:
    """The current value of every knob, as attributes."""

    initial_s: float
    drain_scale: float
    lag_s: float
    linger_s: float
    max_rules: int
    max_tgs: int
    max_region_tgs: int
    max_targets: int
    page_cap: int
    date_shift_s: float

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the environment's values."""
        for name, (variable, default, kind, _) in KNOBS.items():
            setattr(self, name, kind(os.environ.get(variable) or default))

    def update(self, changes: dict[str, Any]) -> None:
        """Set some knobs; an unknown name is a ValueError and changes nothing."""
        unknown = sorted(set(changes) - set(KNOBS))
        if unknown:
            raise ValueError(f"unknown settings {unknown}; known: {sorted(KNOBS)}")
        for name, value in changes.items():
            setattr(self, name, KNOBS[name][2](value))

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KNOBS}


SETTINGS = Settings()


def now() -> float:
    """Seconds on the fake's clock (never jumps back)."""
    return time.monotonic()
