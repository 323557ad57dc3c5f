"""Runs the clients against the gateway and compares their output with expected.txt.

Usage: run.py TARGET_DIRECTORY TOOLS_DIRECTORY [CLIENT…], from the root of the repository. `run.sh` installs the dependencies.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lab import Lab, client, until

TARGET, TOOLS, *ONLY = sys.argv[1:]
HERE = Path("tests/clients")
GO = Path("target/tools/go").absolute()
EXPECTED = (HERE / "expected.txt").read_text().splitlines()
# What to publish for an application: VALUE in expected.txt.
RECORD_VALUE = re.compile(r"(?<= TXT )[0-9a-f]{64}$", re.MULTILINE)
# Lines of expected.txt that a language's libraries do not support.
MISSING = {"node": ["reflection"], "ruby": ["reflection"], "java": ["reflection"], "cpp": ["reflection"],
           "rust": ["watch cancel", "health", "reflection"]}
PROTOS = sorted(str(path.relative_to("proto")) for path in Path("proto/huaweicloud").rglob("*.proto"))
# Also compiled for Java and C++: annotations, error details and health.
OTHERS = ["google/api/annotations.proto", "google/api/http.proto", "google/rpc/status.proto",
          "google/rpc/error_details.proto", "grpc/health/v1/health.proto"]
JARS = ("grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub guava protobuf perfmark-api "
        "jsr305 geronimo-annotation-1.3-spec opencensus-api netty-buffer netty-codec netty-codec-http netty-codec-http2 "
        "netty-common netty-handler netty-handler-proxy netty-resolver netty-transport")


def protoc(folder, *arguments, env=None):
    """Generates code from the gateway's protos and Google's. google/protobuf/descriptor.proto is Google's, too: that of
    Debian's protoc has no debug_redact."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["protoc", "-I", "proto", "-I", f"{TOOLS}/proto", *arguments], check=True, env=env)


def python(folder):
    return [f"{TOOLS}/bin/python", str(HERE / "python/client.py")], {"PYTHONPATH": str(folder)}


def node(_):
    return ["node", str(HERE / "node/client.js")], {"PROTO": "proto", "NODE_PATH": f"{TOOLS}/node/node_modules"}


def ruby(folder):
    made = folder / "ruby"
    protoc(made, f"--ruby_out={made}", f"--grpc_out={made}", f"--plugin=protoc-gen-grpc={shutil.which('grpc_ruby_plugin')}",
           *PROTOS)
    return ["ruby", "-I", str(made), str(HERE / "ruby/client.rb")], {}


def java(folder):
    made = folder / "java"
    protoc(made, f"--java_out={made}", f"--grpc-java_out={made}",
           f"--plugin=protoc-gen-grpc-java={shutil.which('grpc_java_plugin')}", *PROTOS, *OTHERS)
    jars = ":".join(f"/usr/share/java/{jar}.jar" for jar in JARS.split())
    sources = [str(path) for path in made.rglob("*.java")]
    subprocess.run(["javac", "-nowarn", "-d", str(made), "-cp", jars, str(HERE / "java/Client.java"), *sources], check=True,
                   capture_output=True)
    return ["java", "-cp", f"{made}:{jars}", "Client"], {}


def cpp(folder):
    made = folder / "cpp"
    protoc(made, f"--cpp_out={made}", f"--grpc_out={made}", f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}",
           *PROTOS, *OTHERS)
    sources = [str(path) for path in made.rglob("*.cc")]
    libraries = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"], check=True, capture_output=True, text=True)
    subprocess.run(["g++", "-std=c++17", "-I", str(made), "-o", str(made / "client"), str(HERE / "cpp/client.cc"), *sources,
                    *libraries.stdout.split()], check=True)
    return [str(made / "client")], {}


def go(folder):
    made = folder / "go"
    variables = {"GOPATH": f"{made}:{GO}/debian13/usr/share/gocode", "GO111MODULE": "off", "GOCACHE": f"{GO}/cache", "GOFLAGS": "",
                 "CGO_ENABLED": "0", "PATH": f"{GO}/debian13/usr/bin:{os.environ['PATH']}", "HOME": os.environ["HOME"]}
    packages = "".join(f",M{proto}=example.org/client/{Path(proto).parent}" for proto in PROTOS)
    module = made / "src/example.org/client"
    protoc(module, f"--go_out={module}", f"--go_opt=paths=source_relative{packages}", f"--go-grpc_out={module}",
           f"--go-grpc_opt=paths=source_relative{packages}", *PROTOS, env=variables)
    subprocess.run([f"{GO}/debian13/usr/lib/go-1.24/bin/go", "build", "-o", str(made / "client"), str(HERE / "go/client.go")],
                   check=True, env=variables)
    return [str(made / "client")], {}


def rust(_):
    variables = {**os.environ, "PROTO": str(Path("proto").absolute()), "CARGO_TARGET_DIR": str(Path("target/clients-rust").absolute())}
    subprocess.run(["cargo", "build", "--locked", "--quiet", "--example", "client"], check=True, cwd=HERE / "rust", env=variables)
    return ["target/clients-rust/debug/examples/client"], {}


# Language -> build function and the program that it requires.
CLIENTS = {"python": (python, f"{TOOLS}/bin/python"), "node": (node, "node"), "ruby": (ruby, "grpc_ruby_plugin"),
           "java": (java, "grpc_java_plugin"), "cpp": (cpp, "grpc_cpp_plugin"), "go": (go, f"{GO}/debian13/usr/bin/protoc-gen-go-grpc"),
           "rust": (rust, "cargo")}


def commands(folder):
    """Yields name, command and environment of each client. Skips and reports languages that are not installed."""
    for name, (make, needs) in CLIENTS.items():
        if ONLY and name not in ONLY:
            continue
        if not shutil.which(needs):
            print(f"{needs} not found: skipped the {name} client")
            assert not os.environ.get("CI"), "CI must run every client"
            continue
        command, variables = make(folder)
        yield name, command, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "GRPC_VERBOSITY": "NONE", **variables}


def run(command, variables, *arguments):
    """Returns the lines that a client prints."""
    done = subprocess.run([*command, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return RECORD_VALUE.sub("VALUE", done.stdout).splitlines()


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def main():
    with Lab(TARGET) as lab:
        client(lab.folder)  # generates the Python code
        variables = {
            **lab.emulator("--delay", "500"),
            "SCM_GATEWAY__SERVER__MAX_IN_FLIGHT": "1",
            "SCM_GATEWAY__SERVER__LAME_DUCK": "0s",
            "SCM_GATEWAY__WATCH__INTERVAL": "1s",
            # Ends the first watch of each client: the emulator issues a certificate after 10 s.
            "SCM_GATEWAY__SERVER__MAX_CONNECTION_AGE": "10s",
        }
        address, _, process = lab.gateway(variables)
        log = lab.folder / "1-scm-gateway.log"
        clients = list(commands(lab.folder))
        for number, (name, command, environment) in enumerate(clients):
            trace = f"{number + 1:032x}"
            paid = f"scs{number + 1:013}"  # a certificate for each client: an application is possible once
            printed = run(command, environment, address, f"00-{trace}-00000000000000ff-01", paid)
            expected = [line for line in EXPECTED if line.split(":")[0] not in MISSING.get(name, [])]
            assert printed == expected, f"{name} printed\n" + "\n".join(printed)
            until(f"the trace of {name} in the log", lambda: any(line.get("trace_id") == trace for line in lines(log)))
            ended = [line["reason"] for line in lines(log)
                     if line["message"] == "stream ended" and line["cert_id"] == paid]
            assert ended == ["SHUTTING_DOWN"], f"the watches of {name} ended with {ended}"
            print(f"{name}: all {len(printed)} lines as expected, and the log has its trace and the end of its first watch")

        # A call in flight keeps the gateway draining. New calls get UNAVAILABLE.
        holder = subprocess.Popen([*clients[0][1], address, "", ""], env=clients[0][2], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        process.send_signal(signal.SIGTERM)
        until("the drain", lambda: "draining" in log.read_text())
        for name, command, environment in clients:
            printed = run(command, environment, address, "", "", "drain")
            assert printed == ["drain: UNAVAILABLE"], f"{name} printed {printed}"
        print("all: UNAVAILABLE from a draining gateway")
        holder.kill()
        assert process.wait(30) == 0
        lab.running.remove(process)


main()
