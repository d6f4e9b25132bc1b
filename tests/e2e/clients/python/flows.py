"""What a script with the official Python client does: typed objects, watches, patches, exec, custom objects."""

import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "default"


def wait_for(listing, name, is_done):
    """Follows a watch until an object is as wanted."""
    for event in watch.Watch().stream(listing, NAMESPACE, timeout_seconds=60):
        if event["object"].metadata.name == name and is_done(event["object"]):
            return event["object"]
    sys.exit(f"{name} did not get there in a minute")


def config_maps(core):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="from-python-"), data={"colour": "red"})
    name = core.create_namespaced_config_map(NAMESPACE, body).metadata.name
    core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"size": "10"}})
    found = core.read_namespaced_config_map(name, NAMESPACE)
    assert found.data == {"colour": "red", "size": "10"}, found.data
    found.metadata.resource_version = "1"
    try:
        core.replace_namespaced_config_map(name, NAMESPACE, found)
        sys.exit("an old object was taken")
    except ApiException as refused:
        assert refused.status == 409, refused
    core.delete_namespaced_config_map(name, NAMESPACE)


def deployment(apps, core):
    labels = {"app": "python"}
    container = client.V1Container(name="main", image="registry.local/hello:v1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
    body = client.V1Deployment(metadata=client.V1ObjectMeta(name="python"), spec=spec)
    apps.create_namespaced_deployment(NAMESPACE, body)
    wait_for(apps.list_namespaced_deployment, "python", lambda found: found.status.available_replicas == 1)
    apps.patch_namespaced_deployment_scale("python", NAMESPACE, {"spec": {"replicas": 2}})
    wait_for(apps.list_namespaced_deployment, "python", lambda found: found.status.available_replicas == 2)
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=python").items
    assert len(pods) == 2, pods
    apps.delete_namespaced_deployment("python", NAMESPACE, propagation_policy="Foreground")


def shell(core):
    container = client.V1Container(name="main", image="registry.local/busybox:v1", command=["/bin/busybox", "sleep", "600"])
    body = client.V1Pod(metadata=client.V1ObjectMeta(name="shell"), spec=client.V1PodSpec(containers=[container]))
    core.create_namespaced_pod(NAMESPACE, body)
    wait_for(core.list_namespaced_pod, "shell", lambda found: found.status.phase == "Running")
    said = stream(
        core.connect_get_namespaced_pod_exec,
        "shell",
        NAMESPACE,
        command=["/bin/busybox", "echo", "from the pod"],
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
    )
    assert said.strip() == "from the pod", said
    core.delete_namespaced_pod("shell", NAMESPACE, grace_period_seconds=0)


def custom_objects(api):
    names = client.V1CustomResourceDefinitionNames(plural="boats", singular="boat", kind="Boat")
    schema = client.V1JSONSchemaProps(
        type="object",
        properties={"spec": client.V1JSONSchemaProps(type="object", properties={"oars": client.V1JSONSchemaProps(type="integer")})},
    )
    version = client.V1CustomResourceDefinitionVersion(
        name="v1", served=True, storage=True, schema=client.V1CustomResourceValidation(open_apiv3_schema=schema)
    )
    definition = client.V1CustomResourceDefinition(
        metadata=client.V1ObjectMeta(name="boats.python.example"),
        spec=client.V1CustomResourceDefinitionSpec(group="python.example", scope="Namespaced", names=names, versions=[version]),
    )
    client.ApiextensionsV1Api(api).create_custom_resource_definition(definition)
    boats = dynamic.DynamicClient(api).resources.get(api_version="python.example/v1", kind="Boat")
    body = {"apiVersion": "python.example/v1", "kind": "Boat", "metadata": {"name": "knarr"}, "spec": {"oars": 4}}
    dynamic.DynamicClient(api).server_side_apply(boats, body=body, namespace=NAMESPACE, field_manager="python")
    assert boats.get(name="knarr", namespace=NAMESPACE).spec.oars == 4
    boats.delete(name="knarr", namespace=NAMESPACE)
    client.ApiextensionsV1Api(api).delete_custom_resource_definition("boats.python.example")


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    config_maps(core)
    deployment(apps, core)
    shell(core)
    custom_objects(api)
    print("the Python client did everything")


main()
