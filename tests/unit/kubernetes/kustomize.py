"""The small part of kustomize that deploy/kubernetes uses: resources, namespace, images, and JSON
patches of one target.  Anything else in a kustomization is an error."""

import pathlib

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}
CLUSTER_WIDE = {"Namespace"}


def render(folder):
    """All objects of a kustomization."""
    folder = pathlib.Path(folder)
    this = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(this) - KNOWN
    if unknown:
        raise ValueError(f"{folder}: this renderer does not know {sorted(unknown)}")
    objects = []
    for name in this["resources"]:
        path = folder / name
        if path.is_dir():
            objects += render(path)
        else:
            objects += [one for one in yaml.safe_load_all(path.read_text()) if one]
    for one in objects:
        if "namespace" in this and one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = this["namespace"]
    for patch in this.get("patches", []):
        apply_patch(objects, patch)
    for image in this.get("images", []):
        for container in containers(objects):
            if container["image"] == image["name"]:
                container["image"] = (f"{image.get('newName', image['name'])}"
                                      f":{image.get('newTag', 'latest')}")
    return objects


def containers(objects):
    for one in objects:
        template = one.get("spec", {}).get("template") if isinstance(one.get("spec"), dict) else None
        if template:
            yield from template["spec"]["containers"]


def apply_patch(objects, patch):
    target = patch["target"]
    found = [one for one in objects if one["kind"] == target["kind"]
             and one["metadata"]["name"] == target["name"]]
    if len(found) != 1:
        raise ValueError(f"{len(found)} objects are {target}")
    for step in yaml.safe_load(patch["patch"]):
        at = found[0]
        *way, last = [word.replace("~1", "/").replace("~0", "~")
                      for word in step["path"].lstrip("/").split("/")]
        for word in way:
            at = at[int(word)] if isinstance(at, list) else at[word]
        if step["op"] == "replace" and last not in at:
            raise ValueError(f"nothing to replace at {step['path']}")
        if step["op"] not in ("add", "replace") or isinstance(at, list):
            raise ValueError(f"this renderer does not know {step}")
        at[last] = step["value"]
