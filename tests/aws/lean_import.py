"""Import moto's ELBv2 and EC2 without the catalogues the tests never look at.

Why: moto reads every instance type, offering and image of every region and
AWS's end point list three times while it is imported: two seconds and 110 MB.
Without them it is ready in about a second. Import this before any moto module.
"""

import functools
import importlib
import os
from typing import Any

import boto3

CATALOGUES = {"ec2/resources/instance_types.json": {}, "ec2/resources/amis.json": []}
OFFERINGS = "ec2/resources/instance_type_offerings"


def load() -> None:
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
    utils = importlib.import_module("moto.utilities.utils")
    real_session, real_load = boto3.Session, utils.load_resource
    shared = functools.cache(lambda: real_session())

    def lean_load(resource: str) -> Any:
        if resource in CATALOGUES:
            return CATALOGUES[resource]
        return [] if resource.startswith(OFFERINGS) else real_load(resource)

    boto3.Session, utils.load_resource = shared, lean_load
    try:
        importlib.import_module("moto.ec2.models")
        importlib.import_module("moto.elbv2.responses")
    finally:
        boto3.Session, utils.load_resource = real_session, real_load


load()
