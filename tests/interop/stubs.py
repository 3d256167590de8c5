"""The messages and calls of the API, generated from `proto/` into the build folder at each run."""

import os
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def _generate() -> Path:
    folder = BUILD / "interop-stubs"
    folder.mkdir(parents=True, exist_ok=True)
    proto = ROOT / "proto"
    common = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(proto)) for path in proto.rglob("*.proto"))
    out = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", f"-I{proto}", f"-I{common}", *out, *files]) != 0:
        raise RuntimeError("proto/ does not compile")
    return folder


sys.path.insert(0, str(_generate()))

# ruff: noqa: E402, F401
from firstkey.payload.v1 import payload_pb2 as payload
from firstkey.v1 import activation_service_pb2 as activation
from firstkey.v1 import activation_service_pb2_grpc as activation_grpc
from firstkey.v1 import approval_service_pb2 as approvals
from firstkey.v1 import approval_service_pb2_grpc as approvals_grpc
from firstkey.v1 import audit_service_pb2 as audit
from firstkey.v1 import audit_service_pb2_grpc as audit_grpc
from firstkey.v1 import ceremony_service_pb2 as ceremonies
from firstkey.v1 import ceremony_service_pb2_grpc as ceremonies_grpc
from firstkey.v1 import key_service_pb2 as keys
from firstkey.v1 import key_service_pb2_grpc as keys_grpc
from firstkey.v1 import mac_service_pb2 as mac
from firstkey.v1 import mac_service_pb2_grpc as mac_grpc
from firstkey.v1 import pin_service_pb2 as pin
from firstkey.v1 import pin_service_pb2_grpc as pin_grpc
from firstkey.v1 import seal_service_pb2 as seal
from firstkey.v1 import seal_service_pb2_grpc as seal_grpc
from firstkey.v1 import terminal_service_pb2 as terminals
from firstkey.v1 import terminal_service_pb2_grpc as terminals_grpc
from firstkey.v1 import trust_service_pb2 as trust
from firstkey.v1 import trust_service_pb2_grpc as trust_grpc
from firstkey.v1 import types_pb2 as types
