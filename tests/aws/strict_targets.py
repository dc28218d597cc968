"""Target groups and target health as AWS treats them.

Why: plain moto keys targets by instance alone, calls every target healthy at
once, never drains, and refuses a repeated CreateTargetGroup. Here a target is
(id, port) and walks this machine:

    registered -> unused/Target.NotInUse      while no rule uses the group
               -> initial                     for `initial_s`
               -> healthy | unhealthy         unhealthy only when a test asks
    deregistered -> draining                  delay x `drain_scale`, then gone
    instance stopped -> unused/Target.InvalidState
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from settings import SETTINGS, now
from strict_rules import fail, invalid

MATCHER_RANGE = (200, 499)
HEALTH_TAG = "test/health"
DESCRIPTIONS = {
    "Elb.RegistrationInProgress": "Target registration is in progress",
    "Elb.InitialHealthChecking": "Initial health checks in progress",
    "Target.ResponseCodeMismatch": "Health checks failed with these codes: [502]",
    "Target.Timeout": "Request timed out",
    "Target.FailedHealthChecks": "Health checks failed",
    "Target.NotRegistered": "Target is not registered to the target group",
    "Target.NotInUse": "Target group is not configured to receive traffic from the load balancer",
    "Target.DeregistrationInProgress": "Target deregistration is in progress",
    "Target.InvalidState": "Target is in the stopped state",
    "Target.IpUnusable": "The IP address cannot be used as a target",
    "Elb.InternalError": "Health checks failed due to an internal error",
}
STATES = ("initial", "healthy", "unhealthy", "unused", "draining", "unavailable")
# name -> check(value) of every attribute an ALB's target group takes.
SECONDS_WEEK = range(1, 604_801)
ATTRIBUTES: dict[str, Any] = {
    "deregistration_delay.timeout_seconds": lambda v: in_range(v, range(0, 3601)),
    "slow_start.duration_seconds": lambda v: v == "0" or in_range(v, range(30, 901)),
    "stickiness.enabled": lambda v: v in ("true", "false"),
    "stickiness.type": lambda v: v in ("lb_cookie", "app_cookie"),
    "stickiness.lb_cookie.duration_seconds": lambda v: in_range(v, SECONDS_WEEK),
    "stickiness.app_cookie.duration_seconds": lambda v: in_range(v, SECONDS_WEEK),
    "stickiness.app_cookie.cookie_name": lambda v: bool(v) and not v.startswith("AWSALB"),
    "load_balancing.algorithm.type": lambda v: v in ("round_robin", "least_outstanding_requests", "weighted_random"),
    "load_balancing.algorithm.anomaly_mitigation": lambda v: v in ("on", "off"),
    "load_balancing.cross_zone.enabled": lambda v: v in ("true", "false", "use_load_balancer_configuration"),
    "target_group_health.dns_failover.minimum_healthy_targets.count": lambda v: bool(v),
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": lambda v: bool(v),
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": lambda v: bool(v),
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": lambda v: bool(v),
    "waf.fail_open.enabled": lambda v: v in ("true", "false"),
}
# What CreateTargetGroup compares before it calls two requests the same.
COMPARED = (
    "vpc_id protocol protocol_version port target_type ip_address_type health_check_protocol health_check_port "
    "health_check_path health_check_interval_seconds health_check_timeout_seconds healthy_threshold_count "
    "unhealthy_threshold_count matcher"
).split()


def in_range(value: str, allowed: range) -> bool:
    return bool(re.fullmatch(r"\d{1,9}", value)) and int(value) in allowed


@dataclass
class Target:
    """One registered (id, port)."""

    id: str
    port: int
    zone: str | None
    registered_at: float
    draining_until: float | None = None


def extend(group: Any) -> None:
    """Give a moto target group the state moto lacks."""
    group.table: OrderedDict[tuple[str, int], Target] = OrderedDict()
    group.overrides = {}
    group.in_use_since = None
    group.unused_since = None


# ---- target groups -----------------------------------------------------------


def check_health_check(params: dict[str, Any]) -> None:
    """Ranges of the health check's settings, for create and modify."""
    limits = {
        "HealthCheckIntervalSeconds": (5, 300),
        "HealthCheckTimeoutSeconds": (2, 120),
        "HealthyThresholdCount": (2, 10),
        "UnhealthyThresholdCount": (2, 10),
        "Port": (1, 65535),
    }
    for name, (low, high) in limits.items():
        value = params.get(name)
        if value is not None and not low <= int(value) <= high:
            invalid(f"{name} '{value}' must be between '{low}-{high}' inclusive")
    path = params.get("HealthCheckPath")
    if path is not None and (not path.startswith("/") or len(path) > 1024):
        invalid(f"Health check path '{path}' must start with '/' and be at most '1024' characters long")
    port = params.get("HealthCheckPort")
    if port is not None and port != "traffic-port" and not in_range(port, range(1, 65536)):
        invalid(f"Health check port '{port}' must be 'traffic-port' or in the range '1-65535'")
    check_matcher((params.get("Matcher") or {}).get("HttpCode"))


def check_matcher(code: str | None) -> None:
    if code is None:
        return
    low, high = MATCHER_RANGE
    for part in code.split(","):
        bounds = part.split("-")
        numbers = [int(bound) for bound in bounds if re.fullmatch(r"\d{3}", bound)]
        if len(numbers) != len(bounds) or len(bounds) > 2 or not all(low <= n <= high for n in numbers):
            invalid(f"Health check matcher HTTP code '{code}' must be within '{low}-{high}'")


def check_timeout(group: Any) -> None:
    timeout, interval = int(group.health_check_timeout_seconds), int(group.health_check_interval_seconds)
    if timeout >= interval:
        invalid(f"Health check timeout '{timeout}' must be smaller than the interval '{interval}'")


def create_target_group(backend: Any, original: Any, params: dict[str, Any], kwargs: dict[str, Any]) -> Any:
    """Idempotent create: the same settings give the group that is there."""
    backend.check_new_tags(kwargs.get("tags"))
    check_health_check(params)
    name = kwargs.pop("name")
    existing = next((group for group in backend.target_groups.values() if group.name == name), None)
    held = dict(backend.target_groups)
    if existing is not None:
        del backend.target_groups[existing.arn]
    try:
        if existing is None and len(held) >= SETTINGS.max_region_tgs:
            fail("TooManyTargetGroups", f"The maximum number of target groups '{SETTINGS.max_region_tgs}' is reached")
        made = original(backend, name, **kwargs)
        check_timeout(made)
    except BaseException:
        restore(backend.target_groups, held)
        raise
    if existing is None:
        return made
    restore(backend.target_groups, held)
    backend.tagging_service.delete_all_tags_for_resource(made.arn)
    if any(str(getattr(made, key)) != str(getattr(existing, key)) for key in COMPARED):
        fail(
            "DuplicateTargetGroupName",
            f"A target group with the same name '{name}' exists, but with different settings",
        )
    return existing


def restore(mapping: Any, content: dict[str, Any]) -> None:
    mapping.clear()
    mapping.update(content)


def delete_target_group(backend: Any, arn: str) -> None:
    """Succeeds for a missing group; ResourceInUse while an action refers to it."""
    group = backend.target_groups.get(arn)
    if group is None:
        return
    lingering = group.unused_since is not None and now() - group.unused_since < SETTINGS.linger_s
    if group.load_balancer_arns or lingering:
        fail("ResourceInUse", f"Target group '{arn}' is currently in use by a listener or a rule")
    del backend.target_groups[arn]
    backend.tagging_service.delete_all_tags_for_resource(arn)


def modify_attributes(backend: Any, arn: str, attributes: dict[str, str]) -> None:
    group = need_group(backend, arn)
    for key, value in attributes.items():
        check = ATTRIBUTES.get(key)
        if check is None:
            invalid(f"Target group attribute key '{key}' is not recognized")
        if not check(value):
            wanted = " must be between '0-3600' inclusive" if key.startswith("deregistration") else " is not valid"
            invalid(f"'{key}' value '{value}'{wanted}")
    merged = {**group.attributes, **attributes}
    if merged.get("stickiness.type") == "app_cookie" and not merged.get("stickiness.app_cookie.cookie_name"):
        fail("InvalidConfigurationRequest", "You must set an application cookie name for stickiness of type 'app_cookie'")
    group.attributes.update(attributes)


def need_group(backend: Any, arn: str) -> Any:
    group = backend.target_groups.get(arn)
    if group is None:
        fail("TargetGroupNotFound", f"Target groups '{arn}' not found")
    return group


# ---- targets -----------------------------------------------------------------


def target_key(group: Any, target: dict[str, Any]) -> tuple[str, int]:
    port = int(target.get("Port") or group.port)
    if not 1 <= port <= 65535:
        invalid(f"Port '{port}' must be in the range '1-65535'")
    return target["Id"], port


def need_targets(targets: list[dict[str, Any]]) -> None:
    if not targets or not all(target.get("Id") for target in targets):
        invalid("At least one target with an ID must be specified")


def check_target(backend: Any, group: Any, target: dict[str, Any]) -> None:
    ident = target["Id"]
    if group.target_type == "ip":
        try:
            ip_address(ident)
        except ValueError:
            invalid(f"The IP address '{ident}' is not a valid IPv4 address")
        return
    instance = backend.ec2_backend.get_instance_by_id(ident)
    if instance is None or instance.state == "terminated":
        fail("InvalidTarget", f"The following targets are not valid instances: '{ident}'")
    if instance.state != "running":
        fail(
            "InvalidTarget",
            f"The following targets are not in a running state and cannot be registered: '{ident}'",
        )
    if instance.vpc_id != group.vpc_id:
        fail("InvalidTarget", f"The following targets are not in the target group VPC '{group.vpc_id}': '{ident}'")


def register_targets(backend: Any, arn: str, targets: list[dict[str, Any]]) -> None:
    """All or nothing; a draining target starts over, a registered one is kept."""
    group = need_group(backend, arn)
    need_targets(targets)
    sweep(group)
    keys = [target_key(group, target) for target in targets]
    for target in targets:
        check_target(backend, group, target)
    if len(set(group.table) | set(keys)) > SETTINGS.max_targets:
        fail("TooManyTargets", f"The maximum number of targets per target group '{SETTINGS.max_targets}' is reached")
    for key, target in zip(keys, targets):
        held = group.table.get(key)
        if held is None or held.draining_until is not None:
            group.table[key] = Target(key[0], key[1], target.get("AvailabilityZone"), now())


def deregister_targets(backend: Any, arn: str, targets: list[dict[str, Any]]) -> None:
    """What is not registered under this very (id, port) is left alone, without error."""
    group = need_group(backend, arn)
    need_targets(targets)
    for target in targets:
        held = group.table.get(target_key(group, target))
        if held is not None and held.draining_until is None:
            drain(group, held)
    sweep(group)


def drain(group: Any, target: Target) -> None:
    """A group nobody sends traffic to has nothing to drain."""
    delay = int(group.attributes["deregistration_delay.timeout_seconds"]) * SETTINGS.drain_scale
    target.draining_until = now() + (delay if group.load_balancer_arns else 0.0)


def sweep(group: Any) -> None:
    for key, target in list(group.table.items()):
        if target.draining_until is not None and target.draining_until <= now():
            del group.table[key]


def drain_terminated(group: Any, instance_ids: list[str]) -> None:
    """A terminated instance is deregistered by AWS itself."""
    for target in group.table.values():
        if target.id in instance_ids and target.draining_until is None:
            drain(group, target)


# ---- health ------------------------------------------------------------------


def injected(backend: Any, group: Any, key: tuple[str, int]) -> tuple[str, str | None] | None:
    """(state, reason) a test asked for: per target, per group, or by the group's tag."""
    for wanted in (key, None):
        if wanted in group.overrides:
            return group.overrides[wanted]
    tag = backend.tagging_service.get_tag_dict_for_resource(group.arn).get(HEALTH_TAG)
    if not tag:
        return None
    state, _, reason = tag.partition("/")
    return state, reason or None


def state_of(backend: Any, group: Any, target: Target) -> tuple[str, str | None]:
    if target.draining_until is not None:
        return "draining", "Target.DeregistrationInProgress"
    if group.target_type == "instance":
        instance = backend.ec2_backend.get_instance_by_id(target.id)
        if instance is None or instance.state != "running":
            return "unused", "Target.InvalidState"
    if group.in_use_since is None:
        return "unused", "Target.NotInUse"
    asked = injected(backend, group, (target.id, target.port))
    if asked is not None:
        state, reason = asked
        default = {"unhealthy": "Target.FailedHealthChecks", "initial": "Elb.InitialHealthChecking"}
        return state, reason or default.get(state)
    age = now() - max(target.registered_at, group.in_use_since)
    if age < SETTINGS.initial_s / 4:
        return "initial", "Elb.RegistrationInProgress"
    if age < SETTINGS.initial_s:
        return "initial", "Elb.InitialHealthChecking"
    return "healthy", None


def describe_health(backend: Any, arn: str, asked: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    group = need_group(backend, arn)
    sweep(group)
    keys = [target_key(group, target) for target in asked] if asked else list(group.table)
    described = []
    for key in keys:
        target = group.table.get(key)
        state, reason = state_of(backend, group, target) if target else ("unused", "Target.NotRegistered")
        port = str(key[1]) if group.health_check_port == "traffic-port" else str(group.health_check_port)
        health: dict[str, Any] = {"State": state}
        if reason:
            health |= {"Reason": reason, "Description": DESCRIPTIONS.get(reason, reason)}
        shown: dict[str, Any] = {"Id": key[0], "Port": key[1]}
        if target and target.zone:
            shown["AvailabilityZone"] = target.zone
        described.append({"Target": shown, "HealthCheckPort": port, "TargetHealth": health})
    return described
