"""Makes requests up from the OpenAPI documents that the server publishes, and fails when one makes the server fail.

The same requests in each run: each round has a fixed seed, and the time decides only how many rounds there are after the
first. What a request does is confined: names and the namespace are a few fixed ones, so that requests meet objects that
are there; what concerns the whole cluster is only tried (`dryRun=All`), and connections to pods are left out.
"""

import copy
import json
import sys
import time
import warnings

import hypothesis
import requests
import schemathesis
from hypothesis import strategies
from kubernetes import client, config

NAMESPACE = "fuzz"
NAMES = ["one", "two", "three"]
# Of each operation in one round.
EXAMPLES = 2
ROUNDS_MAX = 10
# No round begins after it.
BUDGET_SECONDS = 180
TIMEOUT_SECONDS = 20
METHODS = ["get", "post", "put", "patch", "delete"]
PATCH_TYPES = [
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json-patch+json",
]
# They speak another protocol, or wait for a pod that will never be there.
CONNECTIONS = {"exec", "attach", "portforward", "proxy"}
QUIET = list(hypothesis.HealthCheck)
VALIDATION = ["Strict", "Warn", "Ignore"]


def pod_of(labels):
    container = {"name": "main", "image": "registry.local/none:v1"}
    return {"metadata": {"labels": labels}, "spec": {"schedulerName": "nobody", "containers": [container]}}


LABELS = {"app": "fuzz"}
SELECTED = {"selector": {"matchLabels": LABELS}, "template": pod_of(LABELS)}
JOB = {"suspend": True, "template": {"spec": {**pod_of(LABELS)["spec"], "restartPolicy": "Never"}}}
# What is there to be changed: path of the collection, object.
SEEDS = {
    "/api/v1": {
        "configmaps": {"data": {"a": "b"}},
        "endpoints": {"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]},
        "limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "64"}}]}},
        "persistentvolumeclaims": {
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        },
        "pods": pod_of(LABELS),
        "podtemplates": {"template": pod_of(LABELS)},
        "replicationcontrollers": {"spec": {"replicas": 0, "selector": LABELS, "template": pod_of(LABELS)}},
        "resourcequotas": {"spec": {"hard": {"pods": "1000"}}},
        "secrets": {"stringData": {"a": "b"}},
        "serviceaccounts": {},
        "services": {"spec": {"selector": LABELS, "ports": [{"port": 80}]}},
    },
    "/apis/apps/v1": {
        "controllerrevisions": {"revision": 1, "data": {}},
        "daemonsets": {"spec": SELECTED},
        "deployments": {"spec": {"replicas": 0, **SELECTED}},
        "replicasets": {"spec": {"replicas": 0, **SELECTED}},
        "statefulsets": {"spec": {"replicas": 0, "serviceName": "one", **SELECTED}},
    },
    "/apis/autoscaling/v2": {
        "horizontalpodautoscalers": {
            "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "one"}}
        },
    },
    "/apis/batch/v1": {
        "cronjobs": {"spec": {"schedule": "@yearly", "suspend": True, "jobTemplate": {"spec": JOB}}},
        "jobs": {"spec": JOB},
    },
    "/apis/coordination.k8s.io/v1": {"leases": {"spec": {"holderIdentity": "me"}}},
    "/apis/discovery.k8s.io/v1": {
        "endpointslices": {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]}
    },
    "/apis/networking.k8s.io/v1": {
        "ingresses": {"spec": {"defaultBackend": {"service": {"name": "one", "port": {"number": 80}}}}},
        "networkpolicies": {"spec": {"podSelector": {}}},
    },
    "/apis/policy/v1": {"poddisruptionbudgets": {"spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}}}},
    "/apis/rbac.authorization.k8s.io/v1": {
        "roles": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
        "rolebindings": {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one"},
            "subjects": [{"kind": "ServiceAccount", "name": "one", "namespace": NAMESPACE}],
        },
    },
}


class Server:
    """The server, and what it has answered so far."""

    def __init__(self):
        config.load_kube_config()
        self.settings = client.Configuration.get_default_copy()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = self.settings.ssl_ca_cert
        self.session.cert = (self.settings.cert_file, self.settings.key_file)
        self.codes = {}
        self.failures = []

    def send(self, method, path, query=None, body=None, media_type="application/json"):
        url = self.settings.host + path
        data = None if body is None else json.dumps(body).encode("utf-8", "surrogatepass")
        headers = {"Content-Type": media_type, "Accept": "application/json"}
        request = f"{method.upper()} {path} {query or ''} {(data or b'')[:2000]}"
        try:
            answer = self.session.request(
                method, url, params=query, data=data, headers=headers, timeout=TIMEOUT_SECONDS, stream=True
            )
            code = answer.status_code
            # A watch has no end.
            said = "" if query and query.get("watch") else answer.text
            answer.close()
        except requests.RequestException as error:
            code, said = "no answer", str(error)
        self.codes[code] = self.codes.get(code, 0) + 1
        # 501: the server says what it does not have.
        if code == "no answer" or code >= 500 and code != 501:
            self.failures.append(f"{code} to {request}\n  {said[:1000]}")
        return code, said

    def document(self, path):
        code, said = self.send("get", path)
        if code != 200:
            sys.exit(f"{path} is answered {code}: {said}")
        return json.loads(said)


def texts(value):
    """A query as it is written into a URL."""
    written = {True: "true", False: "false"}
    return {
        name: written.get(each, each) if isinstance(each, (bool, str, int)) else json.dumps(each)
        for name, each in (value or {}).items()
    }


def named(body, name):
    """The object with a name that others have too; what else it has stays."""
    if not isinstance(body, dict):
        return body
    body = copy.deepcopy(body)
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    body["metadata"] = {key: value for key, value in metadata.items() if key in ("labels", "annotations")}
    body["metadata"]["name"] = name
    return body


def patches(body):
    """A JSON Patch that brings an object's members in, and takes one out."""
    members = body.items() if isinstance(body, dict) else []
    changes = [{"op": "add", "path": "/" + key.replace("~", "~0").replace("/", "~1"), "value": value} for key, value in members]
    return changes + [{"op": "remove", "path": "/metadata/labels"}, {"op": "test", "path": "/kind", "value": "x"}]


def closed(document):
    """The document with objects that have no other members than those named: what is made up gets further."""
    document = copy.deepcopy(document)
    for schema in document["components"]["schemas"].values():
        if "properties" in schema and not any(key.startswith("x-kubernetes-preserve") for key in schema):
            schema.setdefault("additionalProperties", False)
    return document


def is_tried(path, method):
    parts = path.strip("/").split("/")
    if parts[-1] in CONNECTIONS or "{path}" in path:
        return False
    # Nothing is deleted that the cluster needs.
    return not (method == "delete" and "{name}" not in path and "{namespace}" not in path)


class Operation:
    """One operation of one document."""

    def __init__(self, schema, path, method):
        self.path, self.method = path, method
        self.cases = schema[path][method.upper()].as_strategy()
        self.bodies = strategies.none()
        item = schema[path]
        if method == "patch":
            source = item["PUT"] if "PUT" in item or "put" in item else None
            self.bodies = source.as_strategy().map(lambda case: case.body) if source else strategies.just({})

    def run(self, server, seed):
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=QUIET,
        )
        @hypothesis.given(self.cases, self.bodies, strategies.randoms(use_true_random=False))
        def attempt(case, body, chance):
            self.attempt(server, case, body, chance)

        attempt()

    def attempt(self, server, case, body, chance):
        name = chance.choice(NAMES)
        # As it was made up, or so that it gets past the first look.
        is_raw = chance.random() < 0.2
        path = self.path.replace("{namespace}", NAMESPACE).replace("{name}", name)
        query = texts(case.query)
        query.pop("pretty", None)
        if not is_raw and self.method != "get":
            query = {"fieldValidation": chance.choice(VALIDATION)}
        if self.method != "get" and "{namespace}" not in self.path:
            query["dryRun"] = "All"
        if query.get("watch") == "true":
            query["timeoutSeconds"] = "1"
        media_type = "application/json"
        if self.method == "patch":
            media_type = chance.choice(PATCH_TYPES)
            body = body if is_raw else named(body, name)
            if media_type.startswith("application/json-patch"):
                body = patches(body)
            elif media_type.startswith("application/apply-patch"):
                query.setdefault("fieldManager", "fuzz")
                query.setdefault("force", "true")
        elif self.method == "get":
            body = None
        else:
            body = None if isinstance(case.body, schemathesis.core.NotSet) else case.body
            if self.method != "delete" and not is_raw:
                body = named(body, name)
        server.send(self.method, path, query, body, media_type)


def plant(server):
    for root, kinds in SEEDS.items():
        for resource, body in kinds.items():
            for name in NAMES:
                path = f"{root}/namespaces/{NAMESPACE}/{resource}"
                code, said = server.send("post", path, body={**body, "metadata": {"name": name}})
                if code not in (201, 409):
                    sys.exit(f"{path} is answered {code}: {said}")


def main():
    warnings.simplefilter("ignore")
    server = Server()
    server.send("post", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    operations = []
    for name in sorted(server.document("/openapi/v3")["paths"]):
        document = server.document(f"/openapi/v3/{name}")
        schema = schemathesis.openapi.from_dict(closed(document))
        for path, item in sorted(document["paths"].items()):
            tried = [method for method in METHODS if method in item and is_tried(path, method)]
            operations.extend(Operation(schema, path, method) for method in tried)
    began = time.monotonic()
    rounds = 0
    while rounds < ROUNDS_MAX and (rounds == 0 or time.monotonic() - began < BUDGET_SECONDS):
        plant(server)
        for operation in operations:
            operation.run(server, rounds)
        rounds += 1
    spent = time.monotonic() - began
    codes = ", ".join(f"{count} x {code}" for code, count in sorted(server.codes.items(), key=str))
    print(f"{rounds} rounds of {len(operations)} operations in {spent:.0f} s: {codes}")
    for failure in server.failures[:40]:
        print(failure)
    if server.failures:
        sys.exit(f"{len(server.failures)} requests made the server fail")
    print("the server failed at nothing")


main()
