"""What pyproject.toml cannot say: the version, the stubs, and the protobuf that these need."""
import pathlib
import re
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import generate_stubs  # noqa: E402


def version() -> str:
    """That of the C++ programs."""
    text = (HERE.parent.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(r"project\(Troupe VERSION ([0-9.]+)", text).group(1)


class BuildWithStubs(build_py):
    """Adds troupe.proto; for an editable installation in the source tree, where git ignores it."""

    def run(self):
        super().run()
        root = HERE if self.editable_mode else pathlib.Path(self.build_lib)
        generate_stubs.generate(root / "troupe" / "proto")


setup(version=version(), cmdclass={"build_py": BuildWithStubs},
      install_requires=["grpcio>=1.60", "numpy>=1.23",
                        f"protobuf>={generate_stubs.protobuf_version()}"])
