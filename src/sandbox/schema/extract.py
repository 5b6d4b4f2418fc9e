#!/usr/bin/env python3
"""Makes types.json.gz: what the sandbox's API server must know of Kubernetes' types.

Sources, both Apache-2.0, fetched through the Go module proxy:

- k8s.io/kubernetes v1.36.1, api/openapi-spec/v3: fields, list types and keys, patch strategies, atomic maps,
  required fields, defaults;
- k8s.io/{api,apimachinery,apiextensions-apiserver} v0.36.1, types.go: which fields are pointers, which are left out
  when empty, their numbers in Protobuf, and the values of enumerations (the published OpenAPI does not say).

    go mod download k8s.io/kubernetes@v1.36.1 k8s.io/api@v0.36.1 \\
        k8s.io/apimachinery@v0.36.1 k8s.io/apiextensions-apiserver@v0.36.1
    ./extract.py "$(go env GOMODCACHE)/k8s.io" types.json.gz

Each type: `g` group, version and kind; `a` atomic; `f` fields. Each field: one of `t` (a scalar: see `scalar` below),
`r` (another type), `m` (a map of), `l` (a list of); `k` list keys, `S` a set, `A` an atomic map, `p` patch strategy,
`pk` patch merge key, `R` required, `D` default, `v` a struct that is always written, `o` left out when empty,
`P` a pointer, `e` the values of an enumeration, `n` the numbers of the field in Protobuf: several where structs are
inlined in JSON and messages of their own in Protobuf.
"""

import glob
import gzip
import json
import re
import sys

MODULES, OUT = sys.argv[1], sys.argv[2]
VERSION, LIBRARY = "v1.36.1", "v0.36.1"
SPEC = f"{MODULES}/kubernetes@{VERSION}/api/openapi-spec/v3"

ROOTS = """
io.k8s.api.core.v1: Namespace Node Pod Service Endpoints ConfigMap Secret ServiceAccount PersistentVolumeClaim
  PersistentVolume ResourceQuota LimitRange Event Binding PodTemplate ReplicationController
io.k8s.api.apps.v1: Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision
io.k8s.api.batch.v1: Job CronJob
io.k8s.api.networking.v1: Ingress IngressClass NetworkPolicy
io.k8s.api.policy.v1: PodDisruptionBudget Eviction
io.k8s.api.autoscaling.v2: HorizontalPodAutoscaler
io.k8s.api.autoscaling.v1: Scale
io.k8s.api.rbac.v1: Role RoleBinding ClusterRole ClusterRoleBinding
io.k8s.api.coordination.v1: Lease
io.k8s.api.scheduling.v1: PriorityClass
io.k8s.api.storage.v1: StorageClass
io.k8s.api.discovery.v1: EndpointSlice
io.k8s.api.events.v1: Event
io.k8s.api.authorization.v1: SelfSubjectAccessReview SelfSubjectRulesReview
io.k8s.api.authentication.v1: SelfSubjectReview
io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1: CustomResourceDefinition
io.k8s.apimachinery.pkg.apis.meta.v1: Status DeleteOptions
"""

REF = "#/components/schemas/"


def roots():
    package = None
    for word in ROOTS.split():
        if word.endswith(":"):
            package = word[:-1]
        else:
            yield f"{package}.{word}"


def openapi():
    schemas = {}
    for path in sorted(glob.glob(f"{SPEC}/*.json")):
        with open(path) as file:
            for name, schema in json.load(file).get("components", {}).get("schemas", {}).items():
                schemas.setdefault(name, schema)
    return schemas


def go_directory(package):
    parts = package.split(".")
    if package.startswith("io.k8s.api."):
        return f"{MODULES}/api@{LIBRARY}/" + "/".join(parts[3:])
    if package.startswith("io.k8s.apimachinery."):
        return f"{MODULES}/apimachinery@{LIBRARY}/" + "/".join(parts[3:])
    return f"{MODULES}/apiextensions-apiserver@{LIBRARY}/" + "/".join(parts[3:])


class GoPackage:
    """The structs and enumerations of one Go package, read with regular expressions: the sources are gofmt'ed."""

    def __init__(self, package):
        text = ""
        for path in sorted(glob.glob(go_directory(package) + "/*.go")):
            if not re.search(r"zz_generated|generated|_test|conversion|defaults", path):
                with open(path) as file:
                    text += file.read() + "\n"
        self.structs = dict(re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.S | re.M))
        self.enums = {}
        for name in re.findall(r"// \+enum\ntype (\w+) string", text):
            values = re.findall(rf"^\s+\w+\s+{name}\s*=\s*\"([^\"]*)\"", text, re.M)
            values += re.findall(rf"^const \w+\s+{name}\s*=\s*\"([^\"]*)\"", text, re.M)
            if values:
                self.enums[name] = sorted(set(values))

    def fields(self, struct):
        """Yields JSON name, Go type, whether it is left out when empty, and the numbers in Protobuf."""
        for line in self.structs.get(struct, "").splitlines():
            found = re.match(r"\s+(\w+(?:\.\w+)?)?\s*(\S+)?\s*`(?:protobuf.*? )?.*?json:\"([^\"]*)\"", line)
            if not found:
                continue
            first, second, tag = found.groups()
            name, *options = tag.split(",")
            number = re.search(r"protobuf:\"\w+,(\d+),", line)
            numbers = [int(number.group(1))] if number else []
            if name:
                yield name, second or first, "omitempty" in options or "omitzero" in options, numbers
            elif "inline" in options:
                for name, kind, omit, inner in self.fields((second or first).lstrip("*").split(".")[-1]):
                    yield name, kind, omit, numbers + inner if numbers else []


SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "d",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "m",
}


def scalar(schema):
    kind = schema.get("type")
    if kind == "string":
        return {"byte": "y", "date-time": "d"}.get(schema.get("format"), "s")
    if kind == "integer":
        return "l" if schema.get("format") == "int64" else "i"
    return {"boolean": "b", "number": "n"}.get(kind, "*")


class Maker:
    def __init__(self):
        self.schemas, self.types, self.packages = openapi(), {}, {}

    def node(self, schema):
        reference = schema.get("$ref") or next((s["$ref"] for s in schema.get("allOf", []) if "$ref" in s), None)
        if reference:
            name = reference.removeprefix(REF)
            if name in SCALARS:
                return {"t": SCALARS[name]}
            target = self.schemas[name]
            if "properties" not in target:
                return {"t": scalar(target)} if target.get("type") != "object" else {"t": "*"}
            self.type(name)
            return {"r": name}
        if schema.get("type") == "array":
            node = {"l": self.node(schema["items"])}
            if schema.get("x-kubernetes-list-type") == "map":
                node["k"] = schema["x-kubernetes-list-map-keys"]
            elif schema.get("x-kubernetes-list-type") == "set":
                node["S"] = 1
            return node
        if "additionalProperties" in schema:
            node = {"m": self.node(schema["additionalProperties"])}
            if schema.get("x-kubernetes-map-type") == "atomic":
                node["A"] = 1
            return node
        return {"t": scalar(schema)}

    def type(self, name):
        if name in self.types:
            return
        schema = self.schemas[name]
        made = self.types[name] = {"f": {}}
        package, struct = name.rsplit(".", 1)
        if package not in self.packages:
            self.packages[package] = GoPackage(package)
        source = self.packages[package]
        go = {field: (kind, omit, numbers) for field, kind, omit, numbers in source.fields(struct)}
        gvks = schema.get("x-kubernetes-group-version-kind", [])
        if len(gvks) == 1:
            made["g"] = [gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"]]
        if schema.get("x-kubernetes-map-type") == "atomic":
            made["a"] = 1
        for field, sub in schema.get("properties", {}).items():
            node = self.node(sub)
            if sub.get("x-kubernetes-map-type") == "atomic":
                node["A"] = 1
            if "x-kubernetes-patch-strategy" in sub:
                node["p"] = sub["x-kubernetes-patch-strategy"]
            if "x-kubernetes-patch-merge-key" in sub:
                node["pk"] = sub["x-kubernetes-patch-merge-key"]
            if field in schema.get("required", []):
                node["R"] = 1
            if sub.get("default") == {}:
                node["v"] = 1
            elif sub.get("default") not in (None, ""):
                node["D"] = sub["default"]
            kind, omit, numbers = go.get(field, ("", True, []))
            if numbers:
                node["n"] = numbers
            if omit:
                node["o"] = 1
            if kind.startswith("*"):
                node["P"] = 1
            values = source.enums.get(kind.lstrip("*"))
            if values:
                node["e"] = values
            made["f"][field] = node
        missing = [f for f in made["f"] if f not in go and f not in ("kind", "apiVersion", "metadata")]
        if missing:
            print(f"{name}: not found in the Go source: {missing}", file=sys.stderr)


maker = Maker()
for root in roots():
    maker.type(root)
data = json.dumps(maker.types, sort_keys=True, separators=(",", ":")).encode()
with open(OUT, "wb") as out:
    out.write(gzip.compress(data, 9, mtime=0))
print(f"{len(maker.types)} types, {len(data)} bytes", file=sys.stderr)
