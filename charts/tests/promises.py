"""What the chart promises of every rendering, whatever the values."""


def pods(objects):
    for found in objects:
        if found["kind"] == "Pod":
            yield found, found["spec"]
        elif found["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield found, found["spec"]["template"]["spec"]


def environment(container):
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def broken(objects):
    """The promises that these objects break."""
    for owner, spec in pods(objects):
        yield from (f"{owner['kind']}/{owner['metadata']['name']}: {text}" for text in of_pod(spec))
    named = {(found["kind"], found["metadata"]["name"]) for found in objects}
    if len(named) != len(objects):
        yield "two objects of one kind have the same name"
    scaled = [found["spec"]["scaleTargetRef"]["name"] for found in objects
              if found["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
    for name in sorted(set(scaled)):
        if scaled.count(name) > 1:
            yield f"{name} is scaled by KEDA and by an HPA"
        if ("Deployment", name) not in named:
            yield f"{name} is scaled and is not there"
    for found in objects:
        if found["kind"] == "Deployment" and ("replicas" in found["spec"]) == (found["metadata"]["name"] in scaled):
            yield f"{found['metadata']['name']}: `replicas` is for what nothing scales"
        if len(found["metadata"]["name"]) > 63:
            yield f"{found['metadata']['name']} is too long"
    yield from selectors(objects)


def selectors(objects):
    """Services, budgets, monitors and policies that select nothing."""
    labels = [found["spec"]["template"]["metadata"]["labels"] for found in objects if found["kind"] == "Deployment"]
    labels += [found["metadata"]["labels"] for found in objects if found["kind"] in ("Pod", "Service")]
    for found in objects:
        spec = found.get("spec", {})
        if found["kind"] == "Service":
            selector = spec["selector"]
        elif found["kind"] == "NetworkPolicy":
            selector = spec["podSelector"].get("matchLabels", {})
        elif found["kind"] in ("PodDisruptionBudget", "PodMonitor", "ServiceMonitor"):
            selector = spec["selector"]["matchLabels"]
        else:
            continue
        if not any(selector.items() <= of.items() for of in labels):
            yield f"{found['kind']}/{found['metadata']['name']} selects nothing"


def of_pod(spec):
    security = spec.get("securityContext", {})
    if spec.get("automountServiceAccountToken") is not False:
        yield "a service-account token is mounted"
    if security.get("runAsNonRoot") is not True or security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "it may run as root or without seccomp"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        if own.get("readOnlyRootFilesystem") is not True or own.get("allowPrivilegeEscalation") is not False \
                or own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} is not confined"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{container['name']} has no memory limit"
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        if mounts - volumes:
            yield f"{container['name']} mounts what is not there: {mounts - volumes}"
        if container["name"] not in ("coordinator", "worker"):
            continue
        if not {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys():
            yield "a probe is missing"
        if container["livenessProbe"]["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"]:
            yield "an outage of RabbitMQ would fail liveness"
        env = environment(container)
        drain = int(env.get("TRIREME__WORKER__DRAIN_MS", "0")) / 1000 \
            or int(env["TRIREME__COORDINATOR__GRACE"].removesuffix("s"))
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if spec["terminationGracePeriodSeconds"] < pause + drain + 5:
            yield "Kubernetes would kill it while it drains"
