"""Images whose programs were built outside of Docker, on the same Debian: minutes instead of half an
hour, for a machine that has just built and tested them.  All else is as in deploy/Dockerfile."""

import glob
import os
import re
import shutil
import tempfile

from engine import ROOT, run

# Stage that builds -> its programs.
PROGRAMS = {"build_replay_server": ["troupe-replay-server", "troupe-restore", "troupe-row-log",
                                    "troupe"],
            "build_actor": ["troupe-actor"],
            "build_learner": ["troupe-learner"]}
# Stages that compile, for these.
WITHOUT = ("tools", "build", "build_learner_cuda", "learner-cuda")


def dockerfile():
    """deploy/Dockerfile, with its programs taken from the context instead of compiled."""
    with open(os.path.join(ROOT, "deploy", "Dockerfile"), encoding="utf-8") as file:
        parts = re.split(r"(?m)^(?=FROM )", file.read())
    stages = [parts[0]]
    for part in parts[1:]:
        name = re.match(r"FROM \S+ AS (\S+)", part)[1]
        if name in PROGRAMS:
            part = f"FROM scratch AS {name}\nCOPY packed/{name} /image\n"
        if name not in WITHOUT:
            stages.append(part)
    return "".join(stages)


def lay_out(build_dir, context):
    shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(context, "deploy"),
                    ignore=shutil.ignore_patterns("__pycache__", "pictures"))
    with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write(dockerfile())
    for stage, programs in PROGRAMS.items():
        run("deploy/gather", os.path.join(context, "packed", stage),
            *(os.path.join(build_dir, "bin", program) for program in programs))
    assets, = glob.glob(os.path.join(ROOT, "build", "venv", "lib", "python3*", "site-packages",
                                     "gymnasium", "envs", "mujoco", "assets"))
    shutil.copytree(assets, os.path.join(context, "packed", "build_actor", "share", "troupe",
                                         "assets"))


def build(build_dir, names, tag, revision, timeout):
    """Images troupe/NAME:TAG."""
    with tempfile.TemporaryDirectory(prefix="troupe_images_") as context:
        lay_out(build_dir, context)
        for name in names:
            run("docker", "build", "--target", name, "--tag", f"troupe/{name}:{tag}",
                "--build-arg", f"REVISION={revision}", context, timeout=timeout)
