"""moto's ELBv2 made strict, in process: the AWS half of the tests talks to this.

Why: where moto is kinder or harsher than AWS, a client that is right fails and
one that is wrong passes. `install()` replaces the operations that differ (the
table is in README.md); everything else stays moto. `call()` is the wire: one
signed HTTP request in, one HTTP answer out, one at a time under LOCK.

It never talks to AWS and holds no credentials.
"""

import base64
import json
import re
import sys
import threading
import traceback
import uuid
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

import lean_import  # noqa: F401  (must come before moto)
from moto.core.request import Request
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import get_service_model
from moto.ec2.models import ec2_backends
from moto.elbv2 import models
from moto.elbv2.models import ELBv2Backend, FakeTargetGroup, elbv2_backends
from moto.elbv2.responses import ELBV2Response

import strict_rules as rules
import strict_targets as targets
from settings import SETTINGS

LOCK = threading.RLock()
ACCOUNT = "123456789012"
TAGS_MAX = 50
TAG_READS_MAX = 20
PAGE_MAX = 400
NAMESPACE = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
# \w is Unicode letters, digits and _; the rest of the first line is \p{Z}.
TAG_TEXT = re.compile(r"[\w \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000.:/=+\-@]*")
Answer = tuple[int, dict[str, str], bytes]


def backend_of(region: str) -> Any:
    return elbv2_backends[ACCOUNT][region]


def reset() -> None:
    """Forget every resource of every region."""
    with LOCK:
        elbv2_backends.reset()
        ec2_backends.reset()


# ---- tags --------------------------------------------------------------------


def check_new_tags(_backend: Any, tags: list[dict[str, str]] | None, held: dict[str, str] | None = None) -> None:
    keys = [tag.get("Key", "") for tag in tags or []]
    for key in keys:
        if keys.count(key) > 1:
            rules.fail("DuplicateTagKeys", f"Tag key was specified more than once: {key}")
        if not 1 <= len(key) <= 128 or not TAG_TEXT.fullmatch(key) or key.lower().startswith("aws:"):
            rules.invalid(f"Tag key '{key}' is not valid")
    for tag in tags or []:
        value = tag.get("Value") or ""
        if len(value) > 256 or not TAG_TEXT.fullmatch(value):
            rules.invalid(f"Tag value '{value}' is not valid")
    if len(set(held or {}) | set(keys)) > TAGS_MAX:
        rules.fail("TooManyTags", f"The maximum number of tags per resource '{TAGS_MAX}' has been reached")


def add_tags(backend: Any, resource_arns: list[str], tags: list[dict[str, str]]) -> None:
    for arn in resource_arns:
        backend._get_resource_by_arn(arn)
        check_new_tags(backend, tags, backend.tagging_service.get_tag_dict_for_resource(arn))
    for arn in resource_arns:
        backend.tagging_service.tag_resource(arn, tags)


def describe_tags(backend: Any, resource_arns: list[str]) -> dict[str, dict[str, str]]:
    if not 1 <= len(resource_arns) <= TAG_READS_MAX:
        rules.invalid(f"You can specify between '1' and '{TAG_READS_MAX}' resources")
    for arn in resource_arns:
        backend._get_resource_by_arn(arn)
    return {arn: backend.tagging_service.get_tag_dict_for_resource(arn) for arn in resource_arns}


def resource_by_arn(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto's look-up, except that it misses default rules."""

    def look_up(backend: Any, arn: str) -> Any:
        if ":listener-rule/" in arn:
            return rules.find_rule(backend, arn)[2]
        return original(backend, arn)

    return look_up


# ---- paging ------------------------------------------------------------------


def page(items: list[Any], key: Callable[[Any], Any], params: dict[str, Any]) -> tuple[list[Any], str | None]:
    """One page of `items`, sorted by `key`, and the marker of the next one.

    A marker names the last key given out, so it survives changes between pages.
    """
    size = params.get("PageSize")
    if size is not None and not 1 <= int(size) <= PAGE_MAX:
        rules.invalid(f"PageSize '{size}' must be between '1-{PAGE_MAX}' inclusive")
    size = min(int(size or PAGE_MAX), SETTINGS.page_cap)
    items = sorted(items, key=key)
    marker = params.get("Marker")
    if marker:
        try:
            last = json.loads(base64.urlsafe_b64decode(marker.encode()))
            items = [item for item in items if json.loads(json.dumps(key(item))) > last]
        except (ValueError, TypeError):
            rules.invalid(f"Marker '{marker}' is not valid")
    shown = items[:size]
    if len(items) <= size:
        return shown, None
    return shown, base64.urlsafe_b64encode(json.dumps(key(shown[-1])).encode()).decode()


def found_or_fail(items: list[Any], asked: list[str], name: Callable[[Any], str], code: str) -> list[Any]:
    known = {name(item): item for item in items}
    missing = [one for one in asked if one not in known]
    if missing:
        rules.fail(code, f"{missing} not found")
    return [known[one] for one in dict.fromkeys(asked)]


# ---- operations (methods of moto's response class) -----------------------------


def op_create_rule(self: Any) -> ActionResult:
    return ActionResult({"Rules": [rules.render_rule(rules.create_rule(self.elbv2_backend, self._get_params()))]})


def op_modify_rule(self: Any) -> ActionResult:
    return ActionResult({"Rules": [rules.render_rule(rules.modify_rule(self.elbv2_backend, self._get_params()))]})


def op_delete_rule(self: Any) -> ActionResult:
    rules.delete_rule(self.elbv2_backend, self._get_params().get("RuleArn"))
    return EmptyResult()


def op_set_rule_priorities(self: Any) -> ActionResult:
    done = rules.set_rule_priorities(self.elbv2_backend, self._get_params().get("RulePriorities") or [])
    return ActionResult({"Rules": [rules.render_rule(rule) for rule in done]})


def op_describe_rules(self: Any) -> ActionResult:
    params = self._get_params()
    found = rules.describe_rules(self.elbv2_backend, params.get("ListenerArn"), params.get("RuleArns"))
    shown, marker = page(found, rules.rule_order, params)
    return ActionResult({"Rules": shown, "NextMarker": marker})


def op_describe_target_groups(self: Any) -> ActionResult:
    params = self._get_params()
    found = self.elbv2_backend.describe_target_groups(
        params.get("LoadBalancerArn"), params.get("TargetGroupArns") or [], params.get("Names") or []
    )
    shown, marker = page(list(found), lambda group: group.name, params)
    return ActionResult({"TargetGroups": shown, "NextMarker": marker})


def op_describe_load_balancers(self: Any) -> ActionResult:
    params, backend = self._get_params(), self.elbv2_backend
    arns, names = params.get("LoadBalancerArns") or [], params.get("Names") or []
    if arns and names:
        rules.invalid("Load balancer names and load balancer ARNs cannot be specified at the same time")
    found = list(backend.describe_load_balancers(None, None))
    if arns:
        found = found_or_fail(found, arns, lambda one: one.arn, "LoadBalancerNotFound")
    if names:
        found = found_or_fail(found, names, lambda one: one.name, "LoadBalancerNotFound")
    shown, marker = page(found, lambda one: one.name, params)
    return ActionResult({"LoadBalancers": shown, "NextMarker": marker})


def op_describe_listeners(self: Any) -> ActionResult:
    params, backend = self._get_params(), self.elbv2_backend
    balancer, arns = params.get("LoadBalancerArn"), params.get("ListenerArns") or []
    if bool(balancer) == bool(arns):
        rules.invalid("You must specify either listener ARNs or a load balancer ARN, not both")
    found = backend.describe_listeners(balancer, [])
    if arns:
        everything = [listener for _, listener in rules.listeners(backend)]
        found = found_or_fail(everything, arns, lambda one: one.arn, "ListenerNotFound")
    shown, marker = page(found, lambda one: one.arn, params)
    return ActionResult({"Listeners": shown, "NextMarker": marker})


def op_create_target_group(original: Callable[..., Any]) -> Callable[..., Any]:
    def create(self: Any) -> ActionResult:
        self.elbv2_backend.creating = self._get_params()
        return original(self)

    return create


def op_modify_target_group(original: Callable[..., Any]) -> Callable[..., Any]:
    def modify(self: Any) -> ActionResult:
        params = self._get_params()
        group = targets.need_group(self.elbv2_backend, params.get("TargetGroupArn"))
        targets.check_health_check(params)
        timeout = params.get("HealthCheckTimeoutSeconds") or group.health_check_timeout_seconds
        interval = params.get("HealthCheckIntervalSeconds") or group.health_check_interval_seconds
        if int(timeout) >= int(interval):
            rules.invalid(f"Health check timeout '{timeout}' must be smaller than the interval '{interval}'")
        return original(self)

    return modify


def op_describe_target_health(self: Any) -> ActionResult:
    params = self._get_params()
    found = targets.describe_health(self.elbv2_backend, params.get("TargetGroupArn"), params.get("Targets"))
    return ActionResult({"TargetHealthDescriptions": found})


# ---- wiring --------------------------------------------------------------------


def then_refresh(original: Callable[..., Any]) -> Callable[..., Any]:
    """A change of listeners also changes who uses which target group."""

    def changing(backend: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(backend, *args, **kwargs)
        rules.refresh_associations(backend)
        return result

    return changing


def create_listener(original: Callable[..., Any]) -> Callable[..., Any]:
    def create(backend: Any, *args: Any, **kwargs: Any) -> Any:
        listener = original(backend, *args, **kwargs)
        default = listener._default_rule[0]
        default.arn = listener.arn.replace(":listener/", ":listener-rule/") + f"/{uuid.uuid4().hex[:16]}"
        rules.changed(backend, listener)
        return listener

    return create


def create_group(original: Callable[..., Any]) -> Callable[..., Any]:
    def create(backend: Any, name: str, **kwargs: Any) -> Any:
        params = backend.__dict__.pop("creating", None) or {}
        return targets.create_target_group(backend, original, params, {"name": name, **kwargs})

    return create


def new_group(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        targets.extend(self)

    return init


def patch(owner: Any, **methods: Callable[..., Any]) -> None:
    for name, method in methods.items():
        assert hasattr(owner, name) or name == "check_new_tags", f"moto has no {owner.__name__}.{name}"
        setattr(owner, name, method)


def install() -> None:
    """Patch moto; call once, before the first request."""
    backend, answers = ELBv2Backend, ELBV2Response
    patch(
        backend,
        check_new_tags=check_new_tags,
        add_tags=add_tags,
        describe_tags=describe_tags,
        _get_resource_by_arn=resource_by_arn(backend._get_resource_by_arn),
        create_target_group=create_group(backend.create_target_group),
        delete_target_group=targets.delete_target_group,
        modify_target_group_attributes=targets.modify_attributes,
        register_targets=targets.register_targets,
        deregister_targets=targets.deregister_targets,
        create_listener=create_listener(backend.create_listener),
        modify_listener=then_refresh(backend.modify_listener),
        delete_listener=then_refresh(backend.delete_listener),
        delete_load_balancer=then_refresh(backend.delete_load_balancer),
    )
    patch(
        answers,
        create_rule=op_create_rule,
        modify_rule=op_modify_rule,
        delete_rule=op_delete_rule,
        set_rule_priorities=op_set_rule_priorities,
        describe_rules=op_describe_rules,
        create_target_group=op_create_target_group(answers.create_target_group),
        modify_target_group=op_modify_target_group(answers.modify_target_group),
        describe_target_groups=op_describe_target_groups,
        describe_load_balancers=op_describe_load_balancers,
        describe_listeners=op_describe_listeners,
        describe_target_health=op_describe_target_health,
    )
    patch(
        FakeTargetGroup,
        __init__=new_group(FakeTargetGroup.__init__),
        deregister_terminated_instances=targets.drain_terminated,
    )
    models.FakeListenerRule.transforms = []


# ---- the wire ------------------------------------------------------------------


def error_answer(status: int, code: str, message: str) -> Answer:
    """An error in the shape ELBv2 gives it."""
    ident, side = str(uuid.uuid4()), "Sender" if status < 500 else "Receiver"
    body = (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>{side}</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{ident}</RequestId></ErrorResponse>"
    )
    return status, {"Content-Type": "text/xml", "x-amzn-RequestId": ident}, body.encode()


def call(method: str, url: str, headers: dict[str, str], body: bytes, action: str) -> Answer:
    """Run one request against the patched moto."""
    signed = {key.lower(): value for key, value in headers.items()}
    if "authorization" not in signed:
        return error_answer(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
    if action not in get_service_model("elbv2").operation_names:
        return error_answer(400, "InvalidAction", f"The action '{action}' is not valid for this web service")
    with LOCK:
        try:
            request = Request.from_primitives(method, url, headers, body)
            status, answered, content = ELBV2Response.dispatch(request)
        except NotImplementedError as error:
            return error_answer(400, "InvalidAction", str(error))
        except Exception:  # a bug of the fake: said aloud, and visible in the wire log
            traceback.print_exc(file=sys.stderr)
            return error_answer(500, "InternalFailure", "the fake crashed; see its stderr")
    content = content.encode() if isinstance(content, str) else content
    kept = {key: str(value) for key, value in answered.items() if key.lower() not in ("status", "server")}
    return int(status), {"Content-Type": "text/xml", **kept}, content
