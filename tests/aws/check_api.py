"""The checks of the strict API: one per row of the table in README.md. Run by check.py."""

import threading
import time
from typing import Any

from bench import FIXED, Bench, check, forward, path_condition, refused, rewrite, same, tags, until
from botocore.exceptions import ClientError

# ---- target groups -------------------------------------------------------------


@check
def group_names_are_checked(b: Bench) -> None:
    for name in ("a" * 33, "a_b", "-a", "a-", "a--b"):
        with refused("ValidationError"):
            b.group(name)
    b.group("a" * 32)


@check
def create_group_again_is_success(b: Bench) -> None:
    first = b.group("same", HealthCheckPath="/healthz", Matcher={"HttpCode": "200-399"}, Tags=tags(a="1"))
    same(b.group("same", HealthCheckPath="/healthz", Matcher={"HttpCode": "200-399"}, Tags=tags(a="1")), first)
    same(len(b.elb.describe_target_groups()["TargetGroups"]), 1)


@check
def create_group_with_other_settings_is_refused(b: Bench) -> None:
    first = b.group("same")
    for change in ({"Port": 1}, {"HealthCheckPath": "/x"}, {"HealthCheckIntervalSeconds": 11}, {"TargetType": "ip"}):
        with refused("DuplicateTargetGroupName"):
            b.group("same", **change)
    same([g["TargetGroupArn"] for g in b.elb.describe_target_groups()["TargetGroups"]], [first])


@check
def create_group_races_make_one(b: Bench) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(b.group("race"))) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    same((len(made), len(set(made))), (8, 1))


@check
def health_check_ranges(b: Bench) -> None:
    bad = [
        {"HealthCheckIntervalSeconds": 4}, {"HealthCheckTimeoutSeconds": 121}, {"HealthyThresholdCount": 11},
        {"UnhealthyThresholdCount": 1}, {"HealthCheckPath": "x"}, {"Matcher": {"HttpCode": "200-500"}},
        {"HealthCheckPort": "0"}, {"HealthCheckIntervalSeconds": 10, "HealthCheckTimeoutSeconds": 10},
    ]  # fmt: skip
    for change in bad:
        with refused("ValidationError"):
            b.group("bad", **change)
    arn = b.group("good")
    for change in bad:
        with refused("ValidationError"):
            b.elb.modify_target_group(TargetGroupArn=arn, **change)
    b.elb.modify_target_group(TargetGroupArn=arn, HealthCheckPath="/y", Matcher={"HttpCode": "200-499"})
    same(b.elb.describe_target_groups(Names=["good"])["TargetGroups"][0]["HealthCheckPath"], "/y")


@check
def describe_missing_group(b: Bench) -> None:
    with refused("TargetGroupNotFound"):
        b.elb.describe_target_groups(Names=["nope"])


@check
def groups_are_paged(b: Bench) -> None:
    names = [f"tg-{index:02}" for index in range(25)]
    [b.group(name) for name in names]
    pages = list(b.elb.get_paginator("describe_target_groups").paginate(PaginationConfig={"PageSize": 10}))
    same([len(page["TargetGroups"]) for page in pages], [10, 10, 5])
    same([group["TargetGroupName"] for page in pages for group in page["TargetGroups"]], names)
    for size in (0, 401):
        with refused("ValidationError"):
            b.elb.describe_target_groups(PageSize=size)
    with refused("ValidationError"):
        b.elb.describe_target_groups(Marker="nonsense")


@check
def page_cap_shortens_every_page(b: Bench) -> None:
    b.settings(page_cap=3)
    [b.rule(priority) for priority in range(1, 8)]
    pages = list(b.elb.get_paginator("describe_rules").paginate(ListenerArn=b.world["listener_arn"]))
    same([len(page["Rules"]) for page in pages], [3, 3, 2])


@check
def attribute_ranges(b: Bench) -> None:
    arn, delay = b.group(), "deregistration_delay.timeout_seconds"
    for value in ("0", "3600"):
        b.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[{"Key": delay, "Value": value}])
    found = b.elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
    same({one["Key"]: one["Value"] for one in found}[delay], "3600")
    for key, value in ((delay, "3601"), (delay, "-1"), ("slow_start.duration_seconds", "5"), ("no.such", "1")):
        with refused("ValidationError"):
            b.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[{"Key": key, "Value": value}])


@check
def delete_group_in_use_then_twice(b: Bench) -> None:
    arn = b.group()
    rule = b.rule(1, group=arn)
    with refused("ResourceInUse"):
        b.elb.delete_target_group(TargetGroupArn=arn)
    b.elb.delete_rule(RuleArn=rule)
    b.elb.delete_target_group(TargetGroupArn=arn)
    b.elb.delete_target_group(TargetGroupArn=arn)
    same(b.elb.describe_target_groups()["TargetGroups"], [])


@check
def group_lingers_in_use_if_asked(b: Bench) -> None:
    b.settings(linger_s=1)
    arn = b.group()
    b.elb.delete_rule(RuleArn=b.rule(1, group=arn))
    with refused("ResourceInUse"):
        b.elb.delete_target_group(TargetGroupArn=arn)
    time.sleep(1.1)
    b.elb.delete_target_group(TargetGroupArn=arn)


@check
def group_is_detached_with_its_last_rule(b: Bench) -> None:
    arn = b.group()
    shown = lambda: b.elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"][0].get("LoadBalancerArns", [])  # noqa: E731
    same(shown(), [])
    rules = [b.rule(1, group=arn), b.rule(2, group=arn)]
    same(shown(), [b.world["load_balancer_arn"]])
    b.elb.delete_rule(RuleArn=rules[0])
    same(shown(), [b.world["load_balancer_arn"]])
    b.elb.modify_rule(RuleArn=rules[1], Actions=[FIXED])
    same(shown(), [])


@check
def group_belongs_to_one_load_balancer(b: Bench) -> None:
    arn, other = b.group(), b.control("POST /_world", {"name": "other"})
    b.rule(1, group=arn)
    with refused("TargetGroupAssociationLimit"):
        b.rule(1, group=arn, ListenerArn=other["listener_arn"])


# ---- targets and health ----------------------------------------------------------


@check
def targets_are_id_and_port(b: Bench) -> None:
    arn = b.group()
    b.register(arn, 8001, 8002)
    same([port for port, _, _ in b.health(arn)], [8001, 8002])


@check
def default_port_and_health_port(b: Bench) -> None:
    arn = b.group()
    b.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": b.world["instance_id"]}])
    found = b.elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"][0]
    same((found["Target"]["Port"], found["HealthCheckPort"]), (8000, "8000"))


@check
def unknown_instance_is_invalid(b: Bench) -> None:
    arn = b.group()
    with refused("InvalidTarget"):
        b.elb.register_targets(TargetGroupArn=arn, Targets=[*b.targets(1), {"Id": "i-unknown", "Port": 1}])
    same(b.health(arn), [])


@check
def instance_of_another_vpc_is_invalid(b: Bench) -> None:
    other = b.control("POST /_world", {"name": "other"})
    with refused("InvalidTarget"):
        b.elb.register_targets(TargetGroupArn=b.group(), Targets=[{"Id": other["instance_id"], "Port": 1}])


@check
def stopped_instance_is_invalid(b: Bench) -> None:
    arn, ident = b.group(), b.control("POST /_world/instance", {})["instance_id"]
    b.rule(1, group=arn)
    b.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": ident, "Port": 1}])
    b.control("POST /_world/instance", {"id": ident, "state": "stopped"})
    same(b.health(arn), [(1, "unused", "Target.InvalidState")])
    with refused("InvalidTarget"):
        b.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": ident, "Port": 2}])


@check
def terminated_instance_is_deregistered(b: Bench) -> None:
    arn, ident = b.group(), b.control("POST /_world/instance", {})["instance_id"]
    b.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": ident, "Port": 1}])
    b.control("POST /_world/instance", {"id": ident, "state": "terminated"})
    same(b.health(arn), [])


@check
def deregister_wrong_port_is_a_no_op(b: Bench) -> None:
    arn = b.group()
    b.register(arn, 8001)
    b.deregister(arn, 9999)
    b.elb.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": b.world["instance_id"]}])
    same([port for port, _, _ in b.health(arn)], [8001])


@check
def deregister_absent_succeeds(b: Bench) -> None:
    b.deregister(b.group(), 8001)
    with refused("ValidationError"):
        b.elb.register_targets(TargetGroupArn=b.group(), Targets=[])
    with refused("TargetGroupNotFound"):
        b.deregister("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/no/0", 1)


@check
def health_walks_from_not_in_use_to_healthy(b: Bench) -> None:
    b.settings(initial_s=2)
    arn = b.group()
    b.register(arn, 1)
    time.sleep(2.1)
    same(b.health(arn), [(1, "unused", "Target.NotInUse")])
    b.rule(1, group=arn)
    same(b.health(arn), [(1, "initial", "Elb.RegistrationInProgress")])
    until(lambda: b.health(arn) == [(1, "initial", "Elb.InitialHealthChecking")])
    until(lambda: b.health(arn) == [(1, "healthy", None)])


@check
def deregistered_target_drains_then_goes(b: Bench) -> None:
    b.settings(drain_scale=0.004, initial_s=0)
    arn = b.group()
    b.rule(1, group=arn)
    b.register(arn, 1)
    same(b.health(arn), [(1, "healthy", None)])
    b.deregister(arn, 1)
    same(b.health(arn), [(1, "draining", "Target.DeregistrationInProgress")])
    until(lambda: b.health(arn) == [])
    same(b.health(arn, {"Id": b.world["instance_id"], "Port": 1}), [(1, "unused", "Target.NotRegistered")])


@check
def draining_target_can_come_back(b: Bench) -> None:
    b.settings(drain_scale=1, initial_s=0)
    arn = b.group()
    b.rule(1, group=arn)
    b.register(arn, 1)
    b.deregister(arn, 1)
    b.register(arn, 1)
    same(b.health(arn), [(1, "healthy", None)])


@check
def unhealthy_by_tag_and_by_hand(b: Bench) -> None:
    b.settings(initial_s=0)
    arn = b.group()
    b.rule(1, group=arn)
    b.register(arn, 1, 2)
    b.elb.add_tags(ResourceArns=[arn], Tags=[{"Key": "test/health", "Value": "unhealthy/Target.Timeout"}])
    same(b.health(arn), [(1, "unhealthy", "Target.Timeout"), (2, "unhealthy", "Target.Timeout")])
    b.elb.remove_tags(ResourceArns=[arn], TagKeys=["test/health"])
    target = f"{b.world['instance_id']}:2"
    b.control("POST /_world/health", {"tg": "tg-1", "target": target, "state": "unhealthy"})
    same(b.health(arn), [(1, "healthy", None), (2, "unhealthy", "Target.FailedHealthChecks")])
    b.control("POST /_world/health", {"tg": arn, "target": target, "state": "auto"})
    same(b.health(arn)[1], (2, "healthy", None))


# ---- rules -----------------------------------------------------------------------


@check
def priority_in_use(b: Bench) -> None:
    b.rule(7)
    with refused("PriorityInUse"):
        b.rule(7, "/other")


@check
def priority_range(b: Bench) -> None:
    for priority in (0, 50_001):
        with refused("ValidationError"):
            b.rule(priority)
    b.rule(1), b.rule(50_000)


@check
def path_values_and_charset(b: Bench) -> None:
    for paths in ([f"/{n}" for n in range(6)], "/a b", "/a%20b", "/" + "a" * 128, "/ä", "/a/*/*/*/*/*/*"):
        with refused("ValidationError"):
            b.rule(1, paths)
    b.rule(1, [f"/{n}" for n in range(5)])
    b.rule(2, "/aZ09_-.$/~\"'@:+&*?")
    b.rule(3, "/" + "a" * 127)


@check
def conditions_are_echoed_twice(b: Bench) -> None:
    b.rule(1, ["/mcp/a", "/mcp/a/*"])
    values = ["/mcp/a", "/mcp/a/*"]
    wanted = {"Field": "path-pattern", "Values": values, "PathPatternConfig": {"Values": values}}
    same(b.rules()[0]["Conditions"], [wanted])


@check
def header_condition_is_kept(b: Bench) -> None:
    condition = {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "Mcp-Session-Id", "Values": ["h1.*"]}}
    b.rule(1, Conditions=[*path_condition("/mcp/*"), condition])
    same(b.rules()[0]["Conditions"][1], condition)


@check
def too_many_rules(b: Bench) -> None:
    b.settings(max_rules=3)
    [b.rule(priority) for priority in (1, 2, 3)]
    with refused("TooManyRules"):
        b.rule(4)


@check
def hundred_rules_by_default(b: Bench) -> None:
    [b.rule(priority) for priority in range(1, 101)]
    with refused("TooManyRules"):
        b.rule(101)


@check
def too_many_unique_target_groups(b: Bench) -> None:
    b.settings(max_tgs=2)
    groups = [b.group(f"tg-{index}") for index in range(3)]
    rules = [b.rule(index + 1, group=group) for index, group in enumerate(groups[:2])]
    b.rule(3, group=groups[0])
    with refused("TooManyUniqueTargetGroupsPerLoadBalancer"):
        b.rule(4, group=groups[2])
    extra = b.rule(5)
    with refused("TooManyUniqueTargetGroupsPerLoadBalancer"):
        b.elb.modify_rule(RuleArn=extra, Actions=[forward(groups[2])])
    b.elb.modify_rule(RuleArn=rules[1], Actions=[forward(groups[2])])


@check
def too_many_target_groups(b: Bench) -> None:
    groups = [b.group(f"tg-{index}") for index in range(6)]
    with refused("TooManyTargetGroups"):
        b.rule(1, Actions=[forward(*groups)])
    b.rule(1, Actions=[forward(*groups[:5])])
    b.settings(max_region_tgs=6)
    with refused("TooManyTargetGroups"):
        b.group("one-more")


@check
def unknown_group_in_action(b: Bench) -> None:
    with refused("TargetGroupNotFound"):
        b.rule(1, group="arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/no/0")
    same(len(b.rules()), 1)


@check
def forward_is_echoed_both_ways(b: Bench) -> None:
    one, two = b.group("tg-1"), b.group("tg-2")
    b.rule(1, group=one)
    b.rule(2, Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": one}]}}])
    b.rule(3, Actions=[forward(one, two)])
    first, second, both = [rule["Actions"][0] for rule in b.rules()[:3]]
    wanted = {
        "TargetGroups": [{"TargetGroupArn": one, "Weight": 1}],
        "TargetGroupStickinessConfig": {"Enabled": False},
    }
    same((first["TargetGroupArn"], first["ForwardConfig"]), (one, wanted))
    same(second, first)
    assert "TargetGroupArn" not in both and len(both["ForwardConfig"]["TargetGroups"]) == 2, both


@check
def transforms_are_stored_and_reset(b: Bench) -> None:
    arn = b.rule(1, Transforms=[rewrite()])
    same(b.rules()[0]["Transforms"], [rewrite()])
    b.elb.modify_rule(RuleArn=arn, Conditions=path_condition("/mcp/b"))
    same(b.rules()[0]["Transforms"], [rewrite()])
    b.elb.modify_rule(RuleArn=arn, Transforms=[rewrite(replace="/x")])
    same(b.rules()[0]["Transforms"], [rewrite(replace="/x")])
    with refused("ValidationError"):
        b.elb.modify_rule(RuleArn=arn, Transforms=[rewrite()], ResetTransforms=True)
    b.elb.modify_rule(RuleArn=arn, ResetTransforms=True)
    same(b.rules()[0].get("Transforms", []), [])


@check
def bad_transforms_are_refused(b: Bench) -> None:
    two = {"Type": "url-rewrite", "UrlRewriteConfig": {"Rewrites": [{"Regex": "a", "Replace": "b"}] * 2}}
    for bad in ([rewrite(), rewrite()], [two], [rewrite("(?=a)")], [rewrite("(a)\\1")], [rewrite("a" * 1025)], [rewrite("(")]):
        with refused("ValidationError"):
            b.rule(1, Transforms=bad)
    with refused("ValidationError"):
        b.elb.modify_rule(RuleArn=b.rule(1))


@check
def priorities_swap_in_one_call(b: Bench) -> None:
    first, second, third = b.rule(1), b.rule(2), b.rule(3)
    pairs = lambda *given: [{"RuleArn": arn, "Priority": priority} for arn, priority in given]  # noqa: E731
    b.elb.set_rule_priorities(RulePriorities=pairs((first, 2), (second, 1)))
    same([rule["RuleArn"] for rule in b.rules()[:3]], [second, first, third])
    b.elb.set_rule_priorities(RulePriorities=pairs((third, 3)))
    b.elb.set_rule_priorities(RulePriorities=pairs((third, 50)))
    with refused("PriorityInUse"):
        b.elb.set_rule_priorities(RulePriorities=pairs((first, 60), (second, 50)))
    same([rule["Priority"] for rule in b.rules()], ["1", "2", "50", "default"])


@check
def rules_are_sorted_and_paged(b: Bench) -> None:
    [b.rule(priority) for priority in (30, 10, 20)]
    same([rule["Priority"] for rule in b.rules()], ["10", "20", "30", "default"])
    listener = b.world["listener_arn"]
    first = b.elb.describe_rules(ListenerArn=listener, PageSize=2)
    b.elb.delete_rule(RuleArn=first["Rules"][1]["RuleArn"])
    rest = b.elb.describe_rules(ListenerArn=listener, PageSize=2, Marker=first["NextMarker"])
    same([rule["Priority"] for rule in rest["Rules"]], ["30", "default"])


@check
def missing_rule_is_not_found(b: Bench) -> None:
    arn = b.rule(1)
    b.elb.delete_rule(RuleArn=arn)
    for attempt in (
        lambda: b.elb.delete_rule(RuleArn=arn),
        lambda: b.elb.modify_rule(RuleArn=arn, Actions=[FIXED]),
        lambda: b.elb.describe_rules(RuleArns=[arn]),
        lambda: b.elb.set_rule_priorities(RulePriorities=[{"RuleArn": arn, "Priority": 2}]),
        lambda: b.elb.describe_tags(ResourceArns=[arn]),
        lambda: b.elb.add_tags(ResourceArns=[arn], Tags=tags(a="1")),
    ):
        with refused("RuleNotFound"):
            attempt()


@check
def default_rule_is_guarded(b: Bench) -> None:
    arn = b.rules()[-1]["RuleArn"]
    for attempt in (
        lambda: b.elb.delete_rule(RuleArn=arn),
        lambda: b.elb.modify_rule(RuleArn=arn, Actions=[FIXED]),
        lambda: b.elb.set_rule_priorities(RulePriorities=[{"RuleArn": arn, "Priority": 2}]),
    ):
        with refused("OperationNotPermitted"):
            attempt()
    same(b.elb.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"], [])


@check
def missing_listener_is_not_found(b: Bench) -> None:
    gone = b.world["listener_arn"] + "0"
    with refused("ListenerNotFound"):
        b.rule(1, ListenerArn=gone)
    with refused("ListenerNotFound"):
        b.elb.describe_rules(ListenerArn=gone)
    with refused("ListenerNotFound"):
        b.elb.describe_listeners(ListenerArns=[b.world["listener_arn"], gone])
    with refused("LoadBalancerNotFound"):
        b.elb.describe_load_balancers(Names=["app", "gone"])


@check
def describe_rules_lags_if_asked(b: Bench) -> None:
    old = b.rule(1)
    b.settings(lag_s=1.5)
    time.sleep(1.6)
    new = b.rule(2)
    b.elb.delete_rule(RuleArn=old)
    same([rule["RuleArn"] for rule in b.rules()[:-1]], [old])
    with refused("PriorityInUse"):
        b.rule(2)
    until(lambda: [rule["RuleArn"] for rule in b.rules()[:-1]] == [new])


@check
def concurrent_creates_never_share_a_priority(b: Bench) -> None:
    outcome: list[str] = []

    def create(priority: int) -> None:
        try:
            outcome.append(b.rule(priority))
        except ClientError as error:
            outcome.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create, args=(1 + index % 5,)) for index in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    same((outcome.count("PriorityInUse"), len(b.rules())), (15, 6))


# ---- tags ------------------------------------------------------------------------


@check
def tags_on_create_add_remove(b: Bench) -> None:
    arn = b.rule(1, Tags=tags(a="1"))
    b.elb.add_tags(ResourceArns=[arn], Tags=tags(b="2"))
    b.elb.remove_tags(ResourceArns=[arn], TagKeys=["a"])
    same(b.elb.describe_tags(ResourceArns=[arn])["TagDescriptions"], [{"ResourceArn": arn, "Tags": tags(b="2")}])


@check
def fifty_tags(b: Bench) -> None:
    arn = b.group(Tags=tags(**{f"k{index}": "v" for index in range(50)}))
    b.elb.add_tags(ResourceArns=[arn], Tags=tags(k0="w"))
    with refused("TooManyTags"):
        b.elb.add_tags(ResourceArns=[arn], Tags=tags(one_more="v"))
    with refused("TooManyTags"):
        b.rule(1, Tags=tags(**{f"k{index}": "v" for index in range(51)}))
    same(len(b.rules()), 1)


@check
def tag_text_is_checked(b: Bench) -> None:
    for key, value in (("a" * 129, ""), ("a", "v" * 257), ("a{", ""), ("aws:x", ""), ("a", "{}")):
        with refused("ValidationError"):
            b.rule(1, Tags=[{"Key": key, "Value": value}])
    with refused("DuplicateTagKeys"):
        b.rule(1, Tags=tags(a="1") * 2)


@check
def describe_tags_limits(b: Bench) -> None:
    arns = [b.group(f"tg-{index}") for index in range(21)]
    same(len(b.elb.describe_tags(ResourceArns=arns[:20])["TagDescriptions"]), 20)
    with refused("ValidationError"):
        b.elb.describe_tags(ResourceArns=arns)
    b.elb.delete_target_group(TargetGroupArn=arns[0])
    with refused("TargetGroupNotFound"):
        b.elb.describe_tags(ResourceArns=arns[:2])
