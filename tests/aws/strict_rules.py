"""Listener rules as AWS treats them: validation, quotas, echo, order, stale reads.

Why: plain moto accepts any priority, path or number of rules, drops transforms,
refuses swaps and lists rules by age. Each function here replaces one moto
operation; strict_moto.py wires them in. All run under the one backend lock.
"""

import re
from collections.abc import Iterator
from typing import Any

from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import FakeAction, FakeListenerRule
from moto.moto_api._internal import mock_random

from settings import SETTINGS, now

PRIORITY_MAX = 50_000
CONDITION_VALUES_MAX = 5
WILDCARDS_MAX = 5
PATTERN_CHARS_MAX = 128
TARGET_GROUPS_PER_ACTION_MAX = 5
WEIGHT_MAX = 999
REWRITE_CHARS_MAX = 1024
HISTORY_KEEP_S = 60.0
PATH_PATTERN = re.compile(r"""[A-Za-z0-9_\-.$/~"'@:+&*?]+""")
# What the ALB's regex engine lacks: look-around, atomic groups, possessive
# quantifiers, back references, Unicode classes.
UNSUPPORTED_REGEX = re.compile(r"\(\?[=!>]|\(\?<[=!]|[*+?}]\+|\\[1-9]|\\k<|\\[pP]\{")
FINAL_ACTIONS = ("forward", "redirect", "fixed-response")


def fail(code: str, message: str) -> None:
    """Raise the error AWS would answer with."""
    raise ELBClientError(code, message)


def invalid(message: str) -> None:
    fail("ValidationError", message)


# ---- looking things up -------------------------------------------------------


def listeners(backend: Any) -> Iterator[tuple[Any, Any]]:
    """Every (load balancer, listener)."""
    for balancer in backend.load_balancers.values():
        for listener in balancer.listeners.values():
            yield balancer, listener


def find_listener(backend: Any, arn: str | None) -> tuple[Any, Any]:
    for balancer, listener in listeners(backend):
        if listener.arn == arn:
            return balancer, listener
    fail("ListenerNotFound", f"Listener '{arn}' not found")
    raise AssertionError


def find_rule(backend: Any, arn: str | None) -> tuple[Any, Any, Any]:
    """(load balancer, listener, rule); default rules are found too."""
    for balancer, listener in listeners(backend):
        for rule in listener.rules.values():
            if rule.arn == arn:
                return balancer, listener, rule
    fail("RuleNotFound", f"One or more rules not found: '{arn}'")
    raise AssertionError


def action_targets(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The weighted target groups of one action as given."""
    groups = (data.get("ForwardConfig") or {}).get("TargetGroups") or []
    if not groups and data.get("TargetGroupArn"):
        groups = [{"TargetGroupArn": data["TargetGroupArn"]}]
    return groups


def rule_targets(rule: Any) -> set[str]:
    return {
        group["TargetGroupArn"]
        for action in rule.actions
        for group in action_targets(action.data)
        if group.get("TargetGroupArn")
    }


def balancer_targets(balancer: Any, without: Any = None) -> set[str]:
    """Unique target groups a load balancer uses, one rule left out."""
    used: set[str] = set()
    for listener in balancer.listeners.values():
        for rule in listener.rules.values():
            if rule is not without:
                used |= rule_targets(rule)
    return used


def refresh_associations(backend: Any) -> None:
    """Recompute which load balancers use each target group, and since when."""
    users: dict[str, list[str]] = {}
    for balancer in backend.load_balancers.values():
        for arn in balancer_targets(balancer):
            users.setdefault(arn, []).append(balancer.arn)
    for group in backend.target_groups.values():
        group.load_balancer_arns = users.get(group.arn, [])
        used = bool(group.load_balancer_arns)
        if used and group.in_use_since is None:
            group.in_use_since = now()
            group.unused_since = None
        elif not used and group.in_use_since is not None:
            group.in_use_since = None
            group.unused_since = now()


# ---- validation --------------------------------------------------------------


def checked_priority(value: Any) -> int:
    if value is None:
        invalid("A rule priority must be specified")
    if not 1 <= int(value) <= PRIORITY_MAX:
        bound = "greater than or equal to 1" if int(value) < 1 else f"less than or equal to {PRIORITY_MAX}"
        invalid(
            f"1 validation error detected: Value '{value}' at 'priority' failed to satisfy "
            f"constraint: Member must have value {bound}"
        )
    return int(value)


def pattern_values(condition: dict[str, Any], config_key: str) -> tuple[list[str], bool]:
    """(values, are they regular expressions) of a path or host condition."""
    config = condition.get(config_key)
    top, top_regex = condition.get("Values"), condition.get("RegexValues")
    if config is not None and (top or top_regex):
        invalid(f"You cannot specify both Values and '{config_key}' for a condition of type '{condition['Field']}'")
    source = config if config is not None else condition
    plain, regex = source.get("Values") or [], source.get("RegexValues") or []
    if plain and regex:
        invalid("You cannot specify both Values and RegexValues")
    if top and len(top) > 1:
        invalid(f"The '{condition['Field']}' field contains too many values; the limit is '1'")
    if not plain and not regex:
        invalid("A condition value must be specified")
    return (regex, True) if regex else (plain, False)


def checked_conditions(backend: Any, conditions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Validate conditions and return them as DescribeRules echoes them."""
    echoed, values_seen, wildcards = [], 0, 0
    for condition in conditions:
        field = condition.get("Field")
        if not field:
            invalid("A condition field must be specified")
        config_key = {"path-pattern": "PathPatternConfig", "host-header": "HostHeaderConfig"}.get(field)
        if config_key is None:
            backend._validate_conditions([condition])
            configs = [value for key, value in condition.items() if key.endswith("Config")]
            values_seen += sum(len(config.get("Values") or []) for config in configs)
            echoed.append(dict(condition))
            continue
        values, regex = pattern_values(condition, config_key)
        for value in values:
            if not 1 <= len(value) <= PATTERN_CHARS_MAX:
                invalid(f"The '{field}' value is too long; the limit is '{PATTERN_CHARS_MAX}'")
            if field == "path-pattern" and not regex and not PATH_PATTERN.fullmatch(value):
                invalid(f"The path pattern '{value}' contains invalid characters")
            if not regex:
                wildcards += value.count("*") + value.count("?")
        values_seen += len(values)
        key = "RegexValues" if regex else "Values"
        echoed.append({"Field": field, key: list(values), config_key: {key: list(values)}})
    if values_seen > CONDITION_VALUES_MAX:
        invalid(f"A rule can only have '{CONDITION_VALUES_MAX}' condition values")
    if wildcards > WILDCARDS_MAX:
        invalid(f"A rule can only have '{WILDCARDS_MAX}' condition wildcards")
    return echoed


def normal_forward(action: dict[str, Any]) -> dict[str, Any]:
    """A forward action with both TargetGroupArn and ForwardConfig, as echoed."""
    groups = [{"Weight": 1, **group} for group in action_targets(action)]
    stickiness = (action.get("ForwardConfig") or {}).get("TargetGroupStickinessConfig") or {"Enabled": False}
    echoed = {"Type": "forward", "Order": action.get("Order", 1)}
    if len(groups) == 1:
        echoed["TargetGroupArn"] = groups[0]["TargetGroupArn"]
    echoed["ForwardConfig"] = {"TargetGroups": groups, "TargetGroupStickinessConfig": stickiness}
    return echoed


def checked_forward(backend: Any, balancer: Any, action: dict[str, Any]) -> dict[str, Any]:
    groups = action_targets(action)
    arns = [group.get("TargetGroupArn") for group in groups]
    if not groups or not all(arns):
        invalid("A target group ARN must be specified")
    if action.get("TargetGroupArn") and action.get("ForwardConfig") and arns != [action["TargetGroupArn"]]:
        fail("InvalidLoadBalancerAction", "You cannot specify both a target group ARN and a different forward config")
    if len(groups) > TARGET_GROUPS_PER_ACTION_MAX:
        fail("TooManyTargetGroups", f"A forward action can have at most '{TARGET_GROUPS_PER_ACTION_MAX}' target groups")
    if len(set(arns)) != len(arns):
        invalid("A target group can be specified only once in a forward action")
    for group in groups:
        if not 0 <= int(group.get("Weight", 1)) <= WEIGHT_MAX:
            invalid(f"The weight must be between '0-{WEIGHT_MAX}' inclusive")
        known = backend.target_groups.get(group["TargetGroupArn"])
        if known is None:
            fail("TargetGroupNotFound", f"Target group '{group['TargetGroupArn']}' not found")
        if any(arn != balancer.arn for arn in known.load_balancer_arns):
            fail(
                "TargetGroupAssociationLimit",
                f"The following target groups cannot be associated with more than one load balancer: {known.arn}",
            )
    return normal_forward(action)


def checked_actions(backend: Any, balancer: Any, actions: list[dict[str, Any]]) -> list[FakeAction]:
    """Validate actions and return them normalised."""
    final = [action for action in actions if action.get("Type") in FINAL_ACTIONS]
    if len(final) != 1:
        code = "TooManyActions" if len(final) > 1 else "InvalidLoadBalancerAction"
        fail(code, "You must specify exactly one of forward, redirect or fixed-response")
    checked = []
    for action in actions:
        if action.get("Type") == "forward":
            checked.append(FakeAction(checked_forward(backend, balancer, action)))
        else:
            checked.append(FakeAction({"Order": 1, **action}))
    backend._validate_actions([action for action in checked if action.type != "forward"])
    return checked


def check_unique_targets(balancer: Any, actions: list[FakeAction], without: Any = None) -> None:
    groups = balancer_targets(balancer, without)
    for action in actions:
        groups |= {group["TargetGroupArn"] for group in action_targets(action.data)}
    if len(groups) > SETTINGS.max_tgs:
        fail(
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            "You have reached the maximum number of unique target groups that you can associate "
            f"with a load balancer of type 'application': [{SETTINGS.max_tgs}]",
        )


def checked_transforms(transforms: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Validate transforms: at most one of each type, one rewrite in each."""
    seen: set[str] = set()
    for transform in transforms or []:
        kind = transform.get("Type", "")
        wanted = {"url-rewrite": "UrlRewriteConfig", "host-header-rewrite": "HostHeaderRewriteConfig"}.get(kind)
        if wanted is None:
            invalid(f"Transform type '{kind}' must be one of [host-header-rewrite, url-rewrite]")
        if kind in seen:
            invalid(f"A rule can have only one transform of type '{kind}'")
        seen.add(kind)
        if set(transform) - {"Type"} != {wanted}:
            invalid(f"A transform of type '{kind}' must have '{wanted}' and nothing else")
        rewrites = transform[wanted].get("Rewrites") or []
        if len(rewrites) != 1:
            invalid("A transform must have exactly one rewrite")
        check_rewrite(rewrites[0])
    return [dict(transform) for transform in transforms or []]


def check_rewrite(rewrite: dict[str, Any]) -> None:
    regex, replace = rewrite.get("Regex"), rewrite.get("Replace")
    if not regex or replace is None:
        invalid("A rewrite must have a regex and a replacement")
    if len(regex) > REWRITE_CHARS_MAX or len(replace) > REWRITE_CHARS_MAX:
        invalid(f"A rewrite's regex and replacement are limited to '{REWRITE_CHARS_MAX}' characters")
    if UNSUPPORTED_REGEX.search(regex):
        invalid(f"The regular expression '{regex}' uses an unsupported construct")
    try:
        re.compile(regex)
    except re.error as error:
        invalid(f"The regular expression '{regex}' is not valid: {error}")


# ---- operations --------------------------------------------------------------


def create_rule(backend: Any, params: dict[str, Any]) -> Any:
    priority = checked_priority(params.get("Priority"))
    balancer, listener = find_listener(backend, params.get("ListenerArn"))
    if not params.get("Conditions"):
        invalid("A condition must be specified")
    conditions = checked_conditions(backend, params["Conditions"])
    actions = checked_actions(backend, balancer, params.get("Actions") or [])
    transforms = checked_transforms(params.get("Transforms"))
    backend.check_new_tags(params.get("Tags"))
    if any(rule.priority == priority for rule in listener.rules.values()):
        fail("PriorityInUse", f"Priority '{priority}' is currently in use")
    held = sum(len(other._non_default_rules) for other in balancer.listeners.values())
    if held >= SETTINGS.max_rules:
        fail("TooManyRules", f"The maximum number of rules per load balancer '{SETTINGS.max_rules}' has been reached")
    check_unique_targets(balancer, actions)
    arn = listener.arn.replace(":listener/", ":listener-rule/") + f"/{mock_random.get_random_hex(16)}"
    rule = FakeListenerRule(listener.arn, arn, conditions, priority, actions)
    rule.transforms = transforms
    listener.register(arn, rule)
    backend.tagging_service.tag_resource(arn, params.get("Tags"))
    changed(backend, listener)
    return rule


def modify_rule(backend: Any, params: dict[str, Any]) -> Any:
    conditions, actions = params.get("Conditions") or [], params.get("Actions") or []
    transforms, reset = params.get("Transforms") or [], bool(params.get("ResetTransforms"))
    if transforms and reset:
        invalid("You cannot specify both Transforms and ResetTransforms")
    if not (conditions or actions or transforms or reset):
        invalid("Either conditions, actions or transforms must be specified")
    balancer, listener, rule = find_rule(backend, params.get("RuleArn"))
    if rule.is_default:
        fail("OperationNotPermitted", f"Default rule '{rule.arn}' cannot be modified")
    new_conditions = checked_conditions(backend, conditions)
    new_actions = checked_actions(backend, balancer, actions) if actions else []
    new_transforms = checked_transforms(transforms)
    check_unique_targets(balancer, new_actions, without=rule if actions else None)
    if conditions:
        rule.conditions = new_conditions
    if actions:
        rule.actions = new_actions
    if transforms or reset:
        rule.transforms = new_transforms
    changed(backend, listener)
    return rule


def delete_rule(backend: Any, arn: str | None) -> None:
    _, listener, rule = find_rule(backend, arn)
    if rule.is_default:
        fail("OperationNotPermitted", f"Default rule '{arn}' cannot be deleted")
    listener.remove_rule(rule.arn)
    backend.tagging_service.delete_all_tags_for_resource(rule.arn)
    changed(backend, listener)


def set_rule_priorities(backend: Any, pairs: list[dict[str, Any]]) -> list[Any]:
    """All or nothing over the new order, so swaps are fine."""
    if not pairs:
        invalid("Rule priorities must be specified")
    wanted: dict[str, int] = {}
    found = []
    for pair in pairs:
        priority = checked_priority(pair.get("Priority"))
        _, listener, rule = find_rule(backend, pair.get("RuleArn"))
        if rule.is_default:
            fail("OperationNotPermitted", f"Default rule '{rule.arn}' priority cannot be modified")
        if rule.arn in wanted:
            invalid(f"Rule '{rule.arn}' was provided multiple times")
        wanted[rule.arn] = priority
        found.append((listener, rule))
    for listener in {id(listener): listener for listener, _ in found}.values():
        order = [wanted.get(rule.arn, rule.priority) for rule in listener._non_default_rules.values()]
        given = [wanted[rule.arn] for at, rule in found if at is listener]
        if len(set(given)) != len(given):
            invalid("A priority was provided multiple times")
        if len(set(order)) != len(order):
            fail("PriorityInUse", "One or more of the specified priorities is currently in use")
    for listener, rule in found:
        rule.priority = wanted[rule.arn]
    for listener in {id(listener): listener for listener, _ in found}.values():
        changed(backend, listener)
    return [rule for _, rule in found]


# ---- echo, order and lag -----------------------------------------------------


def render_rule(rule: Any) -> dict[str, Any]:
    actions = [
        normal_forward(action.data) if action.type == "forward" else {"Order": 1, **action.data}
        for action in rule.actions
    ]
    return {
        "RuleArn": rule.arn,
        "Priority": str(rule.priority),
        "Conditions": [dict(condition) for condition in rule.conditions],
        "Actions": actions,
        "IsDefault": rule.is_default,
        "Transforms": [dict(transform) for transform in getattr(rule, "transforms", [])],
    }


def rule_order(rendered: dict[str, Any]) -> tuple[int, int, str]:
    """By priority, default rules last; the ARN makes it a total order."""
    if rendered["IsDefault"]:
        return (1, 0, rendered["RuleArn"])
    return (0, int(rendered["Priority"]), rendered["RuleArn"])


def snapshot(listener: Any) -> list[dict[str, Any]]:
    return sorted((render_rule(rule) for rule in listener.rules.values()), key=rule_order)


def changed(backend: Any, listener: Any) -> None:
    """Called after each change of a listener's rules: associations and history."""
    refresh_associations(backend)
    history = listener.__dict__.setdefault("history", [])
    history.append((now(), snapshot(listener)))
    horizon = now() - max(HISTORY_KEEP_S, SETTINGS.lag_s)
    while len(history) > 1 and history[1][0] < horizon:
        history.pop(0)


def visible_rules(listener: Any) -> list[dict[str, Any]]:
    """The rules as DescribeRules shows them now, that is as of `lag_s` ago."""
    if SETTINGS.lag_s <= 0:
        return snapshot(listener)
    seen = [rules for at, rules in getattr(listener, "history", []) if at <= now() - SETTINGS.lag_s]
    if seen:
        return seen[-1]
    return [rule for rule in snapshot(listener) if rule["IsDefault"]]


def describe_rules(backend: Any, listener_arn: str | None, rule_arns: list[str] | None) -> list[dict[str, Any]]:
    if bool(listener_arn) == bool(rule_arns):
        invalid("You must specify either listener rule ARNs or a listener ARN, not both")
    if listener_arn:
        return visible_rules(find_listener(backend, listener_arn)[1])
    visible = {rule["RuleArn"]: rule for _, listener in listeners(backend) for rule in visible_rules(listener)}
    missing = [arn for arn in rule_arns or [] if arn not in visible]
    if missing:
        fail("RuleNotFound", f"One or more rules not found: {missing}")
    return sorted((visible[arn] for arn in set(rule_arns or [])), key=rule_order)
