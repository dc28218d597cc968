"""The EC2 instance metadata service, version 2 only.

Why: the AWS SDK refuses moto's, which leaves out the token's time to live. A
test can also turn it off (`POST /_world/imds {"mode": "down" | "hang"}`), as
happens on hosts outside EC2 and at boot.
"""

import json
import secrets
from typing import Any

TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "x-aws-ec2-metadata-token"
TTL_MAX_S = 21_600
TOKENS_MAX = 10_000
MODES = ("up", "down", "hang")
Answer = tuple[int, dict[str, str], bytes]


class Imds:
    """Answers for the default world's instance, or the one a test chose."""

    def __init__(self) -> None:
        self.mode = "up"
        self.instance: str | None = None
        self.tokens: list[str] = []

    def reset(self) -> None:
        self.mode, self.instance = "up", None

    def configure(self, asked: dict[str, Any]) -> dict[str, Any]:
        mode = asked.get("mode", self.mode)
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}")
        self.mode, self.instance = mode, asked.get("instance", self.instance)
        return {"mode": self.mode, "instance": self.instance}

    def answer(self, method: str, path: str, headers: dict[str, str], world: dict[str, Any]) -> Answer:
        """One metadata request; header names are lower case."""
        if method == "PUT" and path == "/latest/api/token":
            return self.token(headers.get(TTL_HEADER, ""))
        if method != "GET":
            return 405, {}, b""
        if headers.get(TOKEN_HEADER) not in self.tokens:
            return 401, {}, b""
        value = self.tree(world).get(path.rstrip("/"))
        if value is None:
            return 404, {}, b""
        return 200, {"Content-Type": "text/plain"}, value.encode()

    def token(self, ttl: str) -> Answer:
        if not ttl.isdigit() or not 1 <= int(ttl) <= TTL_MAX_S:
            return 400, {}, b""
        made = secrets.token_urlsafe(40)
        self.tokens = [*self.tokens[-TOKENS_MAX:], made]
        return 200, {"Content-Type": "text/plain", TTL_HEADER: ttl}, made.encode()

    def tree(self, world: dict[str, Any]) -> dict[str, str]:
        """Path -> text of everything served."""
        region, zone = world["region"], world["zone"]
        instance = self.instance or world["instance_id"]
        mac, role = world["mac"], "mcp-orchestrator"
        meta = "/latest/meta-data"
        nic = f"{meta}/network/interfaces/macs/{mac}"
        document = {
            "accountId": world["account"],
            "architecture": "x86_64",
            "availabilityZone": zone,
            "imageId": "ami-12c6146b",
            "instanceId": instance,
            "instanceType": "t3.micro",
            "pendingTime": "2026-01-01T00:00:00Z",
            "privateIp": world["instance_ip"],
            "region": region,
            "version": "2017-09-30",
        }
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": "2099-01-01T00:00:00Z",
            "AccessKeyId": "ASIAFAKEFAKEFAKEFAKE",
            "SecretAccessKey": "fake",
            "Token": "fake",
        }
        return {
            f"{meta}/instance-id": instance,
            f"{meta}/mac": mac,
            f"{meta}/local-ipv4": world["instance_ip"],
            f"{meta}/placement/region": region,
            f"{meta}/placement/availability-zone": zone,
            f"{meta}/network/interfaces/macs": f"{mac}/",
            f"{nic}/vpc-id": world["vpc_id"],
            f"{nic}/subnet-id": world["subnet_ids"][0],
            f"{nic}/vpc-ipv4-cidr-block": world["vpc_cidr"],
            f"{nic}/vpc-ipv4-cidr-blocks": world["vpc_cidr"],
            f"{meta}/iam/security-credentials": role,
            f"{meta}/iam/security-credentials/{role}": json.dumps(credentials),
            "/latest/dynamic/instance-identity/document": json.dumps(document),
        }
