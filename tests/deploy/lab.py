"""Shared by the deployment tests: starts and stops programs, and generates a client from the protos."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Lab:
    """Programs in a temporary folder, which are stopped on exit."""

    def __init__(self, target):
        self.target = Path(target)
        self.running = []
        self.folder = Path(tempfile.mkdtemp(prefix="scm-gateway-"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(30)

    def start(self, command, **variables):
        """Starts a program. Returns the file of its output, and its process."""
        log = self.folder / f"{len(self.running)}-{Path(command[0]).name}.log"
        with open(log, "w", encoding="utf-8") as output:
            environment = {"PATH": os.environ["PATH"], **variables}
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        self.running.append(process)
        return log, process

    def emulator(self, *arguments):
        """Starts the emulator. Returns the environment variables for a gateway."""
        log, _ = self.start([str(self.target / "debug/examples/scm-emulator"), "--listen", "127.0.0.1:0", *arguments])
        names = until("the emulator's start", lambda: re.findall(r"^export (\w+)=(\S+)$", log.read_text(), re.MULTILINE))
        return {name: value.strip("'") for name, value in names}

    def gateway(self, variables):
        """Starts the gateway on free ports. Returns its address, its admin address, and its process."""
        ports = {"SCM_GATEWAY__SERVER__LISTEN": "127.0.0.1:0", "SCM_GATEWAY__ADMIN__LISTEN": "127.0.0.1:0"}
        log, process = self.start([str(self.target / "debug/scm-gateway")], **ports, **variables)
        serving = until("the gateway's start", lambda: re.search(r'"listen":"([^"]+)","admin":"([^"]+)"', log.read_text()))
        return serving[1], serving[2], process


def until(what, question, seconds=60):
    """Polls until `question` returns a true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            answer = question()
        except OSError:
            answer = None
        if answer:
            return answer
        time.sleep(0.1)
    raise SystemExit(f"{what} did not happen in {seconds} s")


def free_port():
    """Returns a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def client(folder):
    """Returns messages and stubs of CertificateService. The code of all services is generated below `folder`."""
    import grpc_tools
    from grpc_tools import protoc

    google = Path(grpc_tools.__file__).parent / "_proto"
    made = ["", "-Iproto", f"-I{google}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    made += [str(path.relative_to("proto")) for path in Path("proto").rglob("*.proto")]
    assert protoc.main(made) == 0
    sys.path.insert(0, str(folder))
    from huaweicloud.scm.v1 import certificate_service_pb2 as messages
    from huaweicloud.scm.v1 import certificate_service_pb2_grpc as services

    return messages, services


def sample(messages):
    """Returns a valid request."""
    info = messages.CertificateInfo(domain="www.xzz.com", country="CN", applicant_name="Tom", applicant_phone="1",
                                    applicant_email="a@b.c", agree_privacy_protection=True)
    return messages.SaveInfoRequest(cert_id="scs1481110651012", info=info)
