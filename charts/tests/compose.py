"""compose.yaml: no schema of it is in any package registry, so its references are followed by hand."""

import yaml

from tools import ROOT


def wrong():
    text = (ROOT / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    services, volumes = compose["services"], compose.get("volumes", {})
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"{name} depends on {other}, which is no service"
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./"):
                if not (ROOT / source).exists():
                    yield f"{name} mounts {source}, which is not there"
            elif source not in volumes:
                yield f"{name} mounts {source}, which is no volume"
        for config in service.get("configs", []):
            if config["source"] not in compose.get("configs", {}):
                yield f"{name} wants the config {config['source']}"
        if "image" not in service:
            yield f"{name} has no image"
    for entry in compose.get("configs", {}).values():
        # a Prometheus configuration; promtool can't read it for the paths of the container
        if "scrape_configs" not in yaml.safe_load(entry["content"]):
            yield "the Prometheus configuration scrapes nothing"
    needed = {"rabbitmq", "redis", "prometheus", "coordinator", "worker"}
    if needed - set(services):
        yield f"missing: {sorted(needed - set(services))}"
