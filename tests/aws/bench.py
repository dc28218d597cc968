"""The bench of the self-test: a running fake, clients on its ports, small helpers."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

HERE = Path(__file__).resolve().parent
CHECKS: list[tuple[str, Callable[["Bench"], None]]] = []


def check(function: Callable[["Bench"], None]) -> Callable[["Bench"], None]:
    CHECKS.append((function.__name__, function))
    return function


class Bench:
    """A running fake, a client on its direct port and one on its proxy port."""

    def __init__(self) -> None:
        begun = time.monotonic()
        command = [sys.executable, str(HERE / "server.py"), "--imds-port", "0", "--until-stdin-closes"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "FAKE_INSTANCE_ID": "i-fake0001"}
        )
        self.ready = json.loads(self.process.stdout.readline())
        self.start_s = time.monotonic() - begun
        self.world = self.ready["world"]
        self.direct, self.proxy = self.client("port"), self.client("proxy_port")
        self.elb = self.direct

    def client(self, port: str, key: str = "check") -> Any:
        config = Config(
            retries={"total_max_attempts": 1}, parameter_validation=False, connect_timeout=2, read_timeout=5
        )
        return botocore.session.get_session().create_client(
            "elbv2", "us-east-1", endpoint_url=f"http://127.0.0.1:{self.ready[port]}",
            aws_access_key_id=key, aws_secret_access_key="fake", config=config,
        )  # fmt: skip

    def control(self, request: str, body: Any = None, port: str = "proxy_port") -> Any:
        method, path = request.split(" ")
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.ready[port]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as answer:
            return json.loads(answer.read())

    def settings(self, **changes: Any) -> None:
        self.control("POST /_world/settings", changes)

    def group(self, name: str = "tg-1", **changes: Any) -> str:
        asked = {"Name": name, "Protocol": "HTTP", "Port": 8000, "VpcId": self.world["vpc_id"], **changes}
        return self.elb.create_target_group(**asked)["TargetGroups"][0]["TargetGroupArn"]

    def rule(self, priority: int, paths: Any = "/mcp/a", group: str | None = None, **more: Any) -> str:
        asked = {
            "ListenerArn": self.world["listener_arn"],
            "Priority": priority,
            "Conditions": path_condition(paths),
            "Actions": [forward(group) if group else FIXED],
            **more,
        }
        return self.elb.create_rule(**asked)["Rules"][0]["RuleArn"]

    def rules(self) -> list[dict[str, Any]]:
        return self.elb.describe_rules(ListenerArn=self.world["listener_arn"])["Rules"]

    def health(self, group: str, *targets: dict[str, Any]) -> list[tuple[int, str, str | None]]:
        more = {"Targets": list(targets)} if targets else {}
        found = self.elb.describe_target_health(TargetGroupArn=group, **more)["TargetHealthDescriptions"]
        return [(t["Target"]["Port"], t["TargetHealth"]["State"], t["TargetHealth"].get("Reason")) for t in found]

    def register(self, group: str, *ports: int) -> None:
        self.elb.register_targets(TargetGroupArn=group, Targets=self.targets(*ports))

    def deregister(self, group: str, *ports: int) -> None:
        self.elb.deregister_targets(TargetGroupArn=group, Targets=self.targets(*ports))

    def targets(self, *ports: int) -> list[dict[str, Any]]:
        return [{"Id": self.world["instance_id"], "Port": port} for port in ports]


FIXED = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "ContentType": "text/plain"}}


def path_condition(paths: Any) -> list[dict[str, Any]]:
    values = [paths] if isinstance(paths, str) else paths
    return [{"Field": "path-pattern", "PathPatternConfig": {"Values": values}}]


def forward(*groups: str) -> dict[str, Any]:
    if len(groups) == 1:
        return {"Type": "forward", "TargetGroupArn": groups[0]}
    return {"Type": "forward", "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": arn} for arn in groups]}}


def rewrite(regex: str = "^/mcp/a/?(.*)$", replace: str = "/$1") -> dict[str, Any]:
    return {"Type": "url-rewrite", "UrlRewriteConfig": {"Rewrites": [{"Regex": regex, "Replace": replace}]}}


def tags(**pairs: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def same(got: Any, wanted: Any) -> None:
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


@contextmanager
def refused(code: str, status: int = 400) -> Any:
    try:
        yield
    except ClientError as error:
        got = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        same(got, (code, status))
    else:
        raise AssertionError(f"accepted; wanted {code}")


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
