"""Worlds for tests: a VPC with a load balancer, foreign things in it, and damage by hand.

Why: a test should say "someone deletes our rule", not sign a request for it.
Everything here acts behind the wire: it is never logged, delayed or faulted.
"""

import os
import uuid
from typing import Any

import strict_moto
import strict_rules as rules
import strict_targets as targets

VPC_CIDR = "10.0.0.0/16"
IMAGE = "ami-12c6146b"
DEFAULT_NAME = "app"
# AWS always reports these; moto leaves them out.
BALANCER_DEFAULTS = {
    "idle_timeout.timeout_seconds": "60",
    "client_keep_alive.seconds": "3600",
    "routing.http2.enabled": "true",
    "load_balancing.cross_zone.enabled": "true",
}


class World:
    """The named worlds of one region; `app` is made at start and after a reset."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.worlds: dict[str, dict[str, Any]] = {}

    @property
    def elb(self) -> Any:
        return strict_moto.backend_of(self.region)

    @property
    def ec2(self) -> Any:
        return self.elb.ec2_backend

    def default(self) -> dict[str, Any]:
        with strict_moto.LOCK:
            return self.make({})

    def reset(self) -> dict[str, Any]:
        with strict_moto.LOCK:
            strict_moto.reset()
            self.worlds.clear()
            return self.make({})

    def make(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The world of that name, made if it is not there: `name`, `port`."""
        name = asked.get("name", DEFAULT_NAME)
        if name in self.worlds:
            return self.worlds[name]
        vpc = self.ec2.create_vpc(VPC_CIDR)
        zones = [f"{self.region}{letter}" for letter in "ab"]
        subnets = [
            self.ec2.create_subnet(vpc.id, f"10.0.{index}.0/24", availability_zone=zone)
            for index, zone in enumerate(zones, start=1)
        ]
        group = self.ec2.create_security_group(name, "load balancer", vpc_id=vpc.id)
        balancer = self.elb.create_load_balancer(name, [group.id], [s.id for s in subnets], scheme="internal")
        balancer.activate()
        balancer.attrs.update(BALANCER_DEFAULTS)
        answer = {"StatusCode": "404", "ContentType": "text/plain", "MessageBody": "no such route"}
        listener = self.elb.create_listener(
            balancer.arn, "HTTP", asked.get("port", 80), None, None,
            [{"Type": "fixed-response", "FixedResponseConfig": answer}],
        )  # fmt: skip
        world = {
            "name": name,
            "region": self.region,
            "zone": zones[0],
            "account": strict_moto.ACCOUNT,
            "vpc_id": vpc.id,
            "vpc_cidr": VPC_CIDR,
            "subnet_ids": [subnet.id for subnet in subnets],
            "security_group_id": group.id,
            "load_balancer_arn": balancer.arn,
            "dns_name": balancer.dns_name,
            "listener_arn": listener.arn,
            "default_rule_arn": listener._default_rule[0].arn,
        }
        wanted = os.environ.get("FAKE_INSTANCE_ID") if name == DEFAULT_NAME else None
        self.worlds[name] = {**world, **self.launch(world, wanted)}
        return self.worlds[name]

    def launch(self, world: dict[str, Any], ident: str | None) -> dict[str, Any]:
        reservation = self.ec2.run_instances(
            IMAGE, 1, None, [], instance_type="t3.micro", is_instance_type_default=False,
            subnet_id=world["subnet_ids"][0], security_group_ids=[world["security_group_id"]],
            nics={}, block_device_mappings=[], tags={}, placement=None,
        )  # fmt: skip
        instance = reservation.instances[0]
        if ident:
            instance.id = ident
        nics = list(instance.nics.values())
        mac = nics[0].mac_address if nics else "02:00:00:00:00:01"
        return {"instance_id": instance.id, "instance_ip": instance.private_ip, "mac": mac}

    # ---- the verbs of POST /_world/<verb> ------------------------------------

    def foreign_rule(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Someone else's rule: `priority`, `path`, optionally `target_group: true`, `tags`, `listener`."""
        listener_arn = asked.get("listener") or self.default()["listener_arn"]
        tags = asked.get("tags", {"team": "other"})
        action: dict[str, Any] = {
            "Type": "fixed-response",
            "FixedResponseConfig": {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": "foreign"},
        }
        made: dict[str, Any] = {}
        if asked.get("target_group"):
            group = self.elb.create_target_group(
                f"foreign-{uuid.uuid4().hex[:12]}", vpc_id=self.default()["vpc_id"], protocol="HTTP", port=80,
                target_type="instance", tags=pairs(tags),
            )  # fmt: skip
            made["target_group_arn"] = group.arn
            action = {"Type": "forward", "TargetGroupArn": group.arn}
        rule = rules.create_rule(
            self.elb,
            {
                "ListenerArn": listener_arn,
                "Priority": asked["priority"],
                "Conditions": [{"Field": "path-pattern", "PathPatternConfig": {"Values": [asked["path"]]}}],
                "Actions": [action],
                "Tags": pairs(tags),
            },
        )
        return {"rule_arn": rule.arn, **made}

    def health(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Force health: `tg` (ARN or name), `target` ("i-1:8001", absent = all), `state` ("auto" = stop), `reason`."""
        group = self.group(asked["tg"])
        state = asked["state"]
        if state != "auto" and state not in targets.STATES:
            raise ValueError(f"state must be 'auto' or one of {targets.STATES}")
        key = self.key(group, asked.get("target"))
        if state == "auto":
            group.overrides.pop(key, None)
        else:
            group.overrides[key] = (state, asked.get("reason"))
        return {"target_group_arn": group.arn}

    def key(self, group: Any, target: Any) -> tuple[str, int] | None:
        if not target:
            return None
        if isinstance(target, str):
            ident, _, port = target.rpartition(":") if ":" in target else (target, "", "")
            target = {"Id": ident, "Port": port or None}
        else:
            target = {"Id": target["id"], "Port": target.get("port")}
        return targets.target_key(group, target)

    def group(self, name: str) -> Any:
        for group in self.elb.target_groups.values():
            if name in (group.arn, group.name):
                return group
        raise ValueError(f"no target group {name!r}")

    def strip_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Remove tags of `arn`: all of them, or `keys`."""
        service = self.elb.tagging_service
        held = service.get_tag_dict_for_resource(asked["arn"])
        service.untag_resource_using_names(asked["arn"], asked.get("keys") or list(held))
        return {"removed": held}

    def instance(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One more running instance: `id` and `world` optional; or set `state` of an existing `id`."""
        if "state" in asked:
            verb = {"stopped": self.ec2.stop_instances, "running": self.ec2.start_instances}
            verb["terminated"] = self.ec2.terminate_instances
            verb[asked["state"]]([asked["id"]])
            if asked["state"] == "terminated":
                self.elb.notify_terminate_instances([asked["id"]])
            return {"instance_id": asked["id"], "state": asked["state"]}
        world = self.worlds.get(asked.get("world", DEFAULT_NAME)) or self.default()
        return self.launch(world, asked.get("id"))

    def state(self) -> dict[str, Any]:
        """Everything there is, without any lag: rules and target groups with tags, attributes and health."""
        service = self.elb.tagging_service
        shown_rules = []
        for balancer, listener in rules.listeners(self.elb):
            for rule in rules.snapshot(listener):
                tags = service.get_tag_dict_for_resource(rule["RuleArn"])
                shown_rules.append({**rule, "ListenerArn": listener.arn, "Tags": tags})
        groups = [
            {
                "TargetGroupArn": group.arn,
                "TargetGroupName": group.name,
                "Port": int(group.port),
                "LoadBalancerArns": group.load_balancer_arns,
                "Attributes": {key: str(value) for key, value in group.attributes.items()},
                "Tags": service.get_tag_dict_for_resource(group.arn),
                "Targets": targets.describe_health(self.elb, group.arn, None),
            }
            for group in self.elb.target_groups.values()
        ]
        return {"worlds": self.worlds, "rules": shown_rules, "target_groups": groups}


def pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
