"""Makes the package troupe.proto of the .proto files of the repository.

    generate_stubs.py FOLDER        (which becomes troupe/proto)

Needs grpcio-tools.  The files are renamed on the way, proto/X.proto to troupe/proto/X.proto, so
that the modules lie inside the package and no other package's files have their names.
"""
import pathlib
import re
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parent.parent.parent / "proto"
NAMES = ("options", "experience", "replay", "weights", "config")


def generate(folder: pathlib.Path) -> None:
    """Writes __init__.py, NAME_pb2.py and NAME_pb2.pyi into `folder`."""
    if not PROTO.is_dir():
        raise SystemExit(f"no {PROTO}: troupe is installed from a checkout of its repository")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        (root / "troupe" / "proto").mkdir(parents=True)
        sources = []
        for name in NAMES:
            text = (PROTO / f"{name}.proto").read_text(encoding="utf-8")
            text = re.sub(r'^import "proto/', 'import "troupe/proto/', text, flags=re.MULTILINE)
            (root / "troupe" / "proto" / f"{name}.proto").write_text(text, encoding="utf-8")
            sources.append(f"troupe/proto/{name}.proto")
        include = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        status = protoc.main(["protoc", f"-I{root}", f"-I{include}", f"--python_out={root}",
                              f"--pyi_out={root}", *sources])
        if status != 0:
            raise SystemExit(f"protoc failed with {status}")
        for made in (root / "troupe" / "proto").glob("*_pb2.py*"):
            (folder / made.name).write_text(made.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "__init__.py").write_text('"""The messages of proto/*.proto."""\n', encoding="utf-8")


def protobuf_version() -> str:
    """The oldest runtime that the stubs accept."""
    with tempfile.TemporaryDirectory() as temporary:
        generate(pathlib.Path(temporary))
        text = (pathlib.Path(temporary) / "replay_pb2.py").read_text(encoding="utf-8")
    found = re.search(r"# Protobuf Python Version: ([0-9.]+)", text)
    if not found:
        raise SystemExit("the stubs do not say which protobuf they need")
    return found.group(1)


if __name__ == "__main__":
    generate(pathlib.Path(sys.argv[1]))
