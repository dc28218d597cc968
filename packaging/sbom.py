#!/usr/bin/env python3
"""A bill of materials in CycloneDX 1.5 from `cargo metadata` on standard input.

Only what is linked into the program: dependencies of builds and tests are not in it. Two runs on the
same Cargo.lock give the same bytes.
"""

import json
import os
import sys
import datetime
import uuid


def reference(package):
    """The package URL of a crate."""
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package):
    """What CycloneDX says of one crate."""
    licence = " ".join((package.get("license") or "").replace("/", " OR ").split())
    out = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if licence:
        out["licenses"] = [{"expression": licence}]
    if package.get("repository"):
        out["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return out


def linked(nodes, root):
    """Ids reachable over normal dependencies, and what each depends on."""
    edges, todo = {}, [root]
    while todo:
        at = todo.pop()
        if at in edges:
            continue
        normal = [d["pkg"] for d in nodes[at]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
        edges[at] = sorted(set(normal))
        todo += edges[at]
    return edges


def main():
    """Reads, writes."""
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    edges = linked({node["id"]: node for node in metadata["resolve"]["nodes"]}, root)
    own = component(packages[root]) | {"type": "application", "version": sys.argv[1]}
    made = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    others = sorted((packages[i] for i in edges if i != root), key=reference)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": own},
        "components": [component(package) for package in others],
        "dependencies": [
            {"ref": reference(packages[i]), "dependsOn": sorted(reference(packages[d]) for d in needs)}
            for i, needs in sorted(edges.items(), key=lambda edge: reference(packages[edge[0]]))
        ],
    }
    # From the content, so that the same content has the same name.
    bom["serialNumber"] = "urn:uuid:" + str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True)))
    json.dump(bom, sys.stdout, indent=1)
    sys.stdout.write("\n")


main()
