"""deploy/kubernetes: every object fits the schemas of Kubernetes, what they name is there, and every
pod is as locked up as its images allow.  No API server is at hand: nothing is applied.

    kubernetes_test.py BUILD_DIR

Makes its own virtual environment of requirements.txt, as the schemas are 20 MB that nothing else needs.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
BIN = pathlib.Path(sys.argv[1]).resolve() / "bin"
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.28.0", "1.37.0")


def become_python_with_schemas(build_dir):
    folder = pathlib.Path(build_dir) / "kubernetes_venv"
    python = folder / "bin" / "python"
    stamp = folder / "packages"
    wanted = (HERE / "requirements.txt").read_text()
    if pathlib.Path(sys.prefix) == folder:
        return
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.check_call(["/usr/bin/python3", "-m", "venv", "--clear", str(folder)])
        subprocess.check_call([str(python), "-m", "pip", "install", "--quiet",
                               "--disable-pip-version-check", *wanted.split()])
        stamp.write_text(wanted)
    os.execv(python, [str(python), *sys.argv])


become_python_with_schemas(os.path.abspath(sys.argv[1]))

# pylint: disable=wrong-import-position
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

from kustomize import render  # noqa: E402


def pods(objects):
    """(object, pod's labels, pod's spec) of all that makes pods."""
    for one in objects:
        spec = one.get("spec")
        if isinstance(spec, dict) and "template" in spec:
            yield one, spec["template"]["metadata"]["labels"], spec["template"]["spec"]


def matches(selector, labels):
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(rule["key"]) in rule["values"]
                          for rule in selector.get("matchExpressions", []))


def names(objects, kind):
    return {one["metadata"]["name"] for one in objects if one["kind"] == kind}


class Overlay(unittest.TestCase):
    def each(self):
        for name in OVERLAYS:
            with self.subTest(name):
                yield name, render(KUBERNETES / "overlays" / name)

    def test_every_object_fits_the_schemas(self):
        for _, objects in self.each():
            for one in objects:
                for version in VERSIONS:
                    kubernetes_validate.validate(one, version, strict=True)

    @unittest.skipUnless(shutil.which("kubectl"), "there is no kubectl")
    def test_kustomize_renders_the_same(self):
        for name, objects in self.each():
            answer = subprocess.run(["kubectl", "kustomize", KUBERNETES / "overlays" / name],
                                    capture_output=True, check=True, text=True, timeout=60)
            theirs = list(yaml.safe_load_all(answer.stdout))

            def key(one):
                return one["kind"], one["metadata"]["name"]
            self.assertEqual(sorted(objects, key=key), sorted(theirs, key=key))

    def test_pods_are_locked_up(self):
        for _, objects in self.each():
            for one, _, pod in pods(objects):
                what = one["metadata"]["name"]
                self.assertIs(pod["securityContext"]["runAsNonRoot"], True, what)
                self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                self.assertIs(pod["automountServiceAccountToken"], False, what)
                for container in pod["containers"]:
                    context = container["securityContext"]
                    self.assertIs(context["readOnlyRootFilesystem"], True, what)
                    self.assertIs(context["allowPrivilegeEscalation"], False, what)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, what)

    def test_pods_have_probes_limits_and_certificates(self):
        for _, objects in self.each():
            self.assertEqual(len(list(pods(objects))), 4)
            for one, _, pod in pods(objects):
                what = one["metadata"]["name"]
                for container in pod["containers"]:
                    self.assertIn("memory", container["resources"]["limits"], what)
                    for probe in ("startupProbe", "livenessProbe"):
                        self.assertIn("--health", container[probe]["exec"]["command"], what)
                        self.assertEqual(container[probe]["exec"]["command"][0],
                                         "troupe-" + container["name"].replace("evaluator", "actor"))
                    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
                    self.assertEqual(mounts["certs"]["mountPath"], "/certs", what)
                    self.assertTrue(mounts["certs"]["readOnly"], what)

    def test_what_is_named_is_there(self):
        for _, objects in self.each():
            for one, labels, pod in pods(objects):
                what = one["metadata"]["name"]
                claimed = {claim["metadata"]["name"]
                           for claim in one["spec"].get("volumeClaimTemplates", [])}
                volumes = claimed | {volume["name"] for volume in pod["volumes"]}
                for volume in pod["volumes"]:
                    if "persistentVolumeClaim" in volume:
                        self.assertIn(volume["persistentVolumeClaim"]["claimName"],
                                      names(objects, "PersistentVolumeClaim"), what)
                for container in pod["containers"]:
                    self.assertLessEqual({mount["name"] for mount in container["volumeMounts"]},
                                         volumes, what)
                    self.assertLessEqual({source["configMapRef"]["name"]
                                          for source in container["envFrom"]},
                                         names(objects, "ConfigMap"), what)
                if "selector" in one["spec"]:
                    self.assertTrue(matches(one["spec"]["selector"], labels), what)

    def test_selectors_choose_pods(self):
        for _, objects in self.each():
            labels = [labels for _, labels, _ in pods(objects)]
            for one in objects:
                selector = one.get("spec", {}).get("selector")
                if one["kind"] == "Service":
                    selector = {"matchLabels": selector}
                if one["kind"] == "NetworkPolicy":
                    selector = one["spec"]["podSelector"]
                if selector is not None and one["kind"] in ("Service", "NetworkPolicy",
                                                            "PodDisruptionBudget"):
                    self.assertTrue(any(matches(selector, each) for each in labels),
                                    one["metadata"]["name"])

    def test_the_settings_name_the_service_of_the_shards(self):
        for _, objects in self.each():
            (settings,) = [one for one in objects if one["kind"] == "ConfigMap"]
            (replay,) = [one for one in objects if one["kind"] == "StatefulSet"]
            shards = re.search(r"(?:^| )shards=(\S+)", settings["data"]["TROUPE_SET"]).group(1)
            name = replay["spec"]["serviceName"]
            self.assertEqual(shards, f"{name}:7777")
            (service,) = [one for one in objects if one["kind"] == "Service"
                          and one["metadata"]["name"] == name]
            self.assertEqual(service["spec"]["clusterIP"], "None")  # its name: all addresses
            labels = replay["spec"]["template"]["metadata"]["labels"]
            self.assertTrue(matches({"matchLabels": service["spec"]["selector"]}, labels))
            self.assertIn(f"deploy/certs certs --name {name}\n",
                          (KUBERNETES / "README.md").read_text())

    def test_programs_take_their_settings(self):
        for _, objects in self.each():
            (settings,) = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
            for _, _, pod in pods(objects):
                (container,) = pod["containers"]
                program = BIN / container["livenessProbe"]["exec"]["command"][0]
                given = {**settings, **{entry["name"]: entry.get("value", "0")
                                        for entry in container["env"]}}
                config = ROOT / "deploy" / "configs" / pathlib.Path(given["TROUPE_CONFIG"]).name
                done = subprocess.run([program, f"--config={config}", "--print_config"],
                                      env={**os.environ, **given}, capture_output=True, text=True,
                                      check=False, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("replay:7777", done.stdout)
                flags = subprocess.run([program, "--help"], capture_output=True, text=True,
                                       check=True, timeout=60).stdout
                for name in set(given) - {"TROUPE_SET"}:
                    flag = "--" + name.removeprefix("TROUPE_").lower()
                    self.assertRegex(flags, rf"(?m)^  {flag}( |$)", program.name)

    def test_only_the_gpu_overlay_wants_a_gpu(self):
        limits = {}
        for name, objects in self.each():
            (learner,) = [pod for one, _, pod in pods(objects)
                          if one["metadata"]["name"] == "learner"]
            limits[name] = learner["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        self.assertEqual(limits, {"cpu": None, "gpu": 1})


class Roles(unittest.TestCase):
    def test_secrets_are_those_that_the_readme_makes(self):
        readme = (KUBERNETES / "README.md").read_text()
        (roles,) = re.findall(r"for role in (.*); do", readme)
        made = {f"troupe-{role.replace('_', '-')}-tls" for role in roles.split()}
        used = {volume["secret"]["secretName"]
                for _, _, pod in pods(render(KUBERNETES / "overlays" / "cpu"))
                for volume in pod["volumes"] if "secret" in volume}
        self.assertLessEqual(used, made)
        self.assertEqual(made - used, {"troupe-operator-tls"})


class Monitor(unittest.TestCase):
    def test_it_chooses_a_service_whose_port_every_pod_has(self):
        (monitor,) = render(KUBERNETES / "monitoring")
        objects = render(KUBERNETES / "overlays" / "cpu")
        (endpoint,) = monitor["spec"]["endpoints"]
        chosen = [one for one in objects if one["kind"] == "Service"
                  and matches(monitor["spec"]["selector"], one["metadata"]["labels"])]
        self.assertEqual([one["metadata"]["name"] for one in chosen], ["metrics"])
        (port,) = chosen[0]["spec"]["ports"]
        self.assertEqual(port["name"], endpoint["port"])
        for one, labels, pod in pods(objects):
            self.assertTrue(matches({"matchLabels": chosen[0]["spec"]["selector"]}, labels))
            ports = {each["name"]: each["containerPort"]
                     for container in pod["containers"] for each in container["ports"]}
            self.assertEqual(ports[port["targetPort"]], 9464, one["metadata"]["name"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
