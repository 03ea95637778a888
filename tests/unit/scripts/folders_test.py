"""The arrows between the folders point down: proto <- common <- {actor, replay_server, learner}."""

import os
import re
import sys
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
MAY_USE = {"proto": {"proto"}, "common": {"common", "proto"},
           **{program: {program, "common", "proto"}
              for program in ("actor", "replay_server", "learner", "deploy/operator")}}
INCLUDE = re.compile(r'^\s*(?:#\s*include\s*["<]|import\s+(?:public\s+)?")(\w+)/', re.MULTILINE)
TARGET = re.compile(r"^troupe_(?:torch_)?(?:library|program)\(([\w-]+)([^)]*)\)", re.MULTILINE)
OWN_TARGET = re.compile(r"^add_library\((\w+)", re.MULTILINE)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def sources(root, folder):
    for path, _, names in os.walk(os.path.join(root, folder)):
        for name in names:
            if name.endswith((".h", ".cc", ".proto", ".in")):
                yield os.path.join(path, name)


def wrong_includes(root):
    return [f"{os.path.relpath(path, root)} includes {used}/"
            for folder, allowed in MAY_USE.items() for path in sources(root, folder)
            for used in INCLUDE.findall(read(path))
            if used in {*MAY_USE, "tests"} and used not in allowed]


def wrong_links(root):
    lists = {folder: read(os.path.join(root, folder, "CMakeLists.txt")) for folder in MAY_USE}
    owner = {name: folder for folder, text in lists.items()
             for name in [*OWN_TARGET.findall(text), *(name for name, _ in TARGET.findall(text))]}
    return [f"{name} of {folder}/ links {used} of {owner[used]}/"
            for folder, text in lists.items() for name, rest in TARGET.findall(text)
            for used in rest.partition("DEPS")[2].split()
            if owner.get(used, folder) not in MAY_USE[folder]]


class Folders(unittest.TestCase):
    def test_no_source_includes_a_folder_above_or_beside_its_own(self):
        self.assertEqual(wrong_includes(ROOT), [])

    def test_no_target_links_one_of_a_folder_above_or_beside_its_own(self):
        self.assertEqual(wrong_links(ROOT), [])

    def test_there_is_something_to_look_at(self):
        for folder in MAY_USE:
            self.assertGreater(len(list(sources(ROOT, folder))), 3, folder)


class ArrowsThatPointUp(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        for name in MAY_USE:
            os.makedirs(os.path.join(self.root, name))
            self.write(f"{name}/CMakeLists.txt", f"troupe_library(troupe_{name} a.cc DEPS x)\n")

    def write(self, name, text):
        with open(os.path.join(self.root, name), "w", encoding="utf-8") as file:
            file.write(text)

    def test_are_found_in_sources(self):
        self.write("common/a.cc", '#include "proto/a.pb.h"\n#include "actor/b.h"\n')
        self.write("proto/b.proto", 'import "common/c.proto";\n')
        self.write("actor/c.h", '#include "learner/sac.h"\n#include <vector>\n')
        self.assertEqual(len(wrong_includes(self.root)), 3)

    def test_are_found_in_links(self):
        self.write("replay_server/CMakeLists.txt",
                   "troupe_program(server main.cc\n  DEPS troupe_common troupe_actor)\n")
        self.assertEqual(wrong_links(self.root),
                         ["server of replay_server/ links troupe_actor of actor/"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
