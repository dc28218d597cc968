"""The checks of the proxy port: faults, wire log, trip wire, helpers, IMDS. Run by check.py."""

import http.client
import threading
import time
from typing import Any

from bench import FIXED, Bench, check, path_condition, refused, same, tags, until
from botocore.exceptions import ClientError, HTTPClientError, ReadTimeoutError
from botocore.parsers import ResponseParserError


def outcome(b: Bench, priority: int = 1) -> str:
    """Create one rule through the proxy, once: how did it end for the client?"""
    try:
        b.proxy.create_rule(
            ListenerArn=b.world["listener_arn"], Priority=priority, Conditions=path_condition("/x"), Actions=[FIXED],
            Tags=tags(owner="me"),
        )  # fmt: skip
    except ClientError as error:
        return error.response["Error"]["Code"]
    except ReadTimeoutError:
        return "timeout"
    except HTTPClientError:
        return "io"
    except ResponseParserError:
        return "garbled"
    return "ok"


def count(b: Bench) -> int:
    return len(b.rules()) - 1


def one_fault(b: Bench, kind: str, ends: tuple[str, ...], applied: bool, **more: Any) -> dict[str, Any]:
    """The fault happens once, does what it says, and is in the log."""
    b.control("POST /_fault", {"action": "CreateRule", "kind": kind, **more})
    b.proxy.describe_rules(ListenerArn=b.world["listener_arn"])
    got = outcome(b)
    assert got in ends, f"{kind}: client saw {got}"
    same((count(b) == 1), applied)
    entry = b.control("GET /_log")[-1]
    same((entry["action"], entry["fault"], entry["applied"]), ("CreateRule", kind, applied))
    same(outcome(b, 2), "ok")
    return entry


@check
def fault_throttle(b: Bench) -> None:
    same(one_fault(b, "throttle", ("Throttling",), False)["status"], 400)
    b.control("POST /_fault", {"kind": "throttle", "code": "RequestLimitExceeded"})
    same(outcome(b, 3), "RequestLimitExceeded")


@check
def fault_error(b: Bench) -> None:
    entry = one_fault(b, "error", ("AccessDenied",), False, code="AccessDenied", status=403)
    same((entry["status"], entry["code"]), (403, "AccessDenied"))


@check
def fault_http503(b: Bench) -> None:
    one_fault(b, "http503", ("503", "garbled"), False)


@check
def fault_drop_before(b: Bench) -> None:
    one_fault(b, "drop_before", ("io",), False)


@check
def fault_lost_response(b: Bench) -> None:
    one_fault(b, "lost_response", ("io",), True)


@check
def fault_lost_503(b: Bench) -> None:
    same(one_fault(b, "lost_503", ("503", "garbled"), True)["status"], 503)


@check
def fault_half_body(b: Bench) -> None:
    one_fault(b, "half_body", ("io",), True)


@check
def fault_garbage(b: Bench) -> None:
    one_fault(b, "garbage", ("garbled",), False)


@check
def fault_delay(b: Bench) -> None:
    begun = time.monotonic()
    one_fault(b, "delay", ("ok",), True, seconds=0.5)
    assert time.monotonic() - begun >= 0.5


@check
def fault_hang(b: Bench) -> None:
    b.control("POST /_fault", {"kind": "hang", "seconds": 60})
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(outcome(b)))
    thread.start()
    time.sleep(0.3)
    same((ended, count(b)), ([], 0))
    b.control("DELETE /_fault")
    thread.join(5)
    same((ended, count(b)), (["io"], 0))


@check
def fault_times_skip_action_contains(b: Bench) -> None:
    b.control("POST /_fault", {"action": "CreateRule", "kind": "throttle", "times": 2, "skip": 1})
    same([outcome(b, priority) for priority in range(1, 5)], ["ok", "Throttling", "Throttling", "ok"])
    b.control("POST /_fault", {"kind": "error", "times": -1, "contains": "Tags.member.1"})
    b.proxy.describe_rules(ListenerArn=b.world["listener_arn"])
    same([outcome(b, 6), outcome(b, 7)], ["InternalFailure"] * 2)
    same(b.control("GET /_fault")[-1]["hits"], 2)
    b.control("DELETE /_fault")
    same(outcome(b, 8), "ok")


@check
def fault_only_for_one_key(b: Bench) -> None:
    b.control("POST /_fault", {"kind": "throttle", "key": "host-b"})
    same(outcome(b, 1), "ok")
    with refused("Throttling"):
        b.client("proxy_port", "host-b").describe_load_balancers()


@check
def delayed_call_loses_its_priority(b: Bench) -> None:
    b.control("POST /_fault", {"action": "CreateRule", "kind": "delay", "seconds": 1.5})
    ended: list[str] = []
    late = threading.Thread(target=lambda: ended.append(outcome(b, 5)))
    late.start()
    until(lambda: len(b.control("GET /_log")) == 1)
    same(outcome(b, 5), "ok")
    late.join()
    same((ended, count(b)), (["PriorityInUse"], 1))


@check
def log_says_what_was_touched(b: Bench) -> None:
    arn = b.group(Tags=tags(owner="me"))
    b.proxy.register_targets(TargetGroupArn=arn, Targets=b.targets(8001))
    b.proxy.describe_tags(ResourceArns=[arn])
    with refused("InvalidTarget"):
        b.proxy.register_targets(TargetGroupArn=arn, Targets=[{"Id": "i-x"}])
    one, two, three = b.control("GET /_log")
    same((one["seq"] < two["seq"] < three["seq"], one["mutating"], two["mutating"]), (True, True, False))
    same((one["action"], one["arns"], one["tags"]), ("RegisterTargets", [arn], {arn: {"owner": "me"}}))
    same((one["params"]["Targets.member.1.Port"], one["status"], one["applied"], one["key"]), ("8001", 200, True, "check"))
    same((three["status"], three["code"], three["applied"]), (400, "InvalidTarget", False))
    same(len(b.control(f"GET /_log?after={two['seq']}")), 1)
    b.control("DELETE /_log")
    same(b.control("GET /_log"), [])


@check
def direct_port_is_not_logged_or_faulted(b: Bench) -> None:
    b.control("POST /_fault", {"kind": "error", "times": -1})
    b.rule(1)
    same(b.control("GET /_log"), [])


def tripped(b: Bench, mode: str, end: str, **more: Any) -> tuple[str, int, int]:
    """Hold the second call; (how it ended, rules while held, rules after `end`)."""
    b.control("POST /_trip", {"after": 2, "mode": mode, **more})
    same(outcome(b, 1), "ok")
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(outcome(b, 2)))
    thread.start()
    held = b.control("GET /_trip/wait?timeout=5")
    same((held["tripped"], held["entry"]["action"], ended), (True, "CreateRule", []))
    during = count(b)
    same(b.control(end)["held"], True)
    thread.join(5)
    return ended[0], during, count(b)


@check
def trip_hold_released_and_dropped(b: Bench) -> None:
    same(tripped(b, "hold", "POST /_trip/release"), ("ok", 1, 2))
    b.world = b.control("POST /_reset", {})
    same(tripped(b, "hold", "POST /_trip/drop"), ("io", 1, 1))


@check
def trip_apply_then_hold(b: Bench) -> None:
    same(tripped(b, "apply_then_hold", "POST /_trip/release"), ("ok", 2, 2))
    b.world = b.control("POST /_reset", {})
    same(tripped(b, "apply_then_hold", "DELETE /_trip"), ("io", 2, 2))


@check
def trip_freezes_later_calls(b: Bench) -> None:
    b.control("POST /_trip", {"after": 1, "mutating": True})
    b.proxy.describe_load_balancers()
    ended: list[str] = []
    threads = [threading.Thread(target=lambda p=p: ended.append(outcome(b, p))) for p in (1, 2, 3)]
    [thread.start() for thread in threads]
    same(b.control("GET /_trip/wait?timeout=5")["tripped"], True)
    until(lambda: len(b.control("GET /_log")) == 4)
    time.sleep(0.2)
    same((ended, count(b)), ([], 0))
    b.control("POST /_trip/drop")
    [thread.join(5) for thread in threads]
    same((ended, count(b)), (["io"] * 3, 0))


@check
def trip_notices_a_killed_client(b: Bench) -> None:
    b.control("POST /_trip", {"after": 1})
    body = "Action=DeleteRule&Version=2015-12-01&RuleArn=" + b.rule(1)
    dying = http.client.HTTPConnection("127.0.0.1", b.ready["proxy_port"])
    dying.request("POST", "/", body, {"Authorization": "AWS4-HMAC-SHA256 Credential=k/d/us-east-1/x/aws4_request"})
    same(b.control("GET /_trip/wait?timeout=5")["tripped"], True)
    dying.close()
    until(lambda: b.control("GET /_log")[-1]["ms"] is not None)
    b.control("POST /_trip/release")
    same(count(b), 1)


@check
def trip_wait_runs_out(b: Bench) -> None:
    b.control("POST /_trip", {"after": 5})
    outcome(b)
    same(b.control("GET /_trip/wait?timeout=0.2"), {"tripped": False, "seen": 1, "entry": None})


@check
def world_helpers(b: Bench) -> None:
    made = b.control("POST /_world/foreign_rule", {"priority": 9, "path": "/mcp/*", "target_group": True})
    rule = b.rules()[0]
    same((rule["RuleArn"], rule["Actions"][0]["TargetGroupArn"]), (made["rule_arn"], made["target_group_arn"]))
    same(b.control("POST /_world/strip_tags", {"arn": made["rule_arn"]}), {"removed": {"team": "other"}})
    same(b.elb.describe_tags(ResourceArns=[made["rule_arn"]])["TagDescriptions"][0]["Tags"], [])
    same(b.control("POST /_world", {})["vpc_id"], b.world["vpc_id"])
    attributes = b.elb.describe_load_balancer_attributes(LoadBalancerArn=b.world["load_balancer_arn"])["Attributes"]
    assert {"Key": "idle_timeout.timeout_seconds", "Value": "60"} in attributes, attributes
    state = b.control("GET /_world/state")
    same((len(state["rules"]), len(state["target_groups"])), (2, 1))
    gone = b.control("POST /_call", {"action": "DeleteRule", "params": {"RuleArn": made["rule_arn"]}})
    same((gone["status"], count(b), b.control("GET /_log")), (200, 0, []))


@check
def reset_forgets_everything(b: Bench) -> None:
    b.rule(1), b.group()
    b.settings(max_rules=1)
    b.control("POST /_fault", {"kind": "error", "times": -1})
    b.control("POST /_trip", {"after": 1})
    world = b.control("POST /_reset", {})
    assert world["listener_arn"] != b.world["listener_arn"]
    b.world = world
    same((outcome(b, 1), outcome(b, 2), count(b)), ("ok", "ok", 2))


@check
def unsigned_and_unknown_calls(b: Bench) -> None:
    for headers, body, status in (
        ({}, "Action=DescribeLoadBalancers", 403),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=k/d/us-east-1/x/aws4_request"}, "Action=Nope", 400),
    ):
        wire = http.client.HTTPConnection("127.0.0.1", b.ready["proxy_port"])
        wire.request("POST", "/", body, {"Content-Type": "application/x-www-form-urlencoded", **headers})
        same(wire.getresponse().status, status)


@check
def many_clients_at_once(b: Bench) -> None:
    ended: list[str] = []
    threads = [threading.Thread(target=lambda p=p: ended.append(outcome(b, p))) for p in range(1, 41)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    same((ended.count("ok"), count(b), len(b.control("GET /_log"))), (40, 40, 40))


# ---- instance metadata -----------------------------------------------------------


def imds(b: Bench, method: str, path: str, **headers: str) -> tuple[int, str, Any]:
    wire = http.client.HTTPConnection("127.0.0.1", b.ready["imds_port"], timeout=5)
    wire.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = wire.getresponse()
    return answer.status, answer.read().decode(), answer.headers


@check
def imds_version_two_only(b: Bench) -> None:
    same(imds(b, "GET", "/latest/meta-data/instance-id")[0], 401)
    same(imds(b, "PUT", "/latest/api/token")[0], 400)
    status, token, headers = imds(b, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60")
    same((status, headers["x-aws-ec2-metadata-token-ttl-seconds"]), (200, "60"))
    get = lambda path: imds(b, "GET", path, X_aws_ec2_metadata_token=token)[1]  # noqa: E731
    same(get("/latest/meta-data/instance-id"), "i-fake0001")
    same(b.world["instance_id"], "i-fake0001")
    nic = "/latest/meta-data/network/interfaces/macs/" + get("/latest/meta-data/mac")
    same((get(nic + "/vpc-id"), get(nic + "/vpc-ipv4-cidr-blocks")), (b.world["vpc_id"], "10.0.0.0/16"))
    assert '"region": "us-east-1"' in get("/latest/dynamic/instance-identity/document")
    same(imds(b, "GET", "/latest/meta-data/nope", X_aws_ec2_metadata_token=token)[0], 404)


@check
def imds_can_be_down(b: Bench) -> None:
    b.control("POST /_world/imds", {"mode": "down"})
    try:
        imds(b, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60")
        raise AssertionError("it answered")
    except OSError:
        pass
    b.control("POST /_world/imds", {"mode": "up"})
    same(imds(b, "PUT", "/latest/api/token", X_aws_ec2_metadata_token_ttl_seconds="60")[0], 200)
