"""Opens the status page in Chromium while one project is served and the circuit of another is open.

Usage: status_page.py TARGET_FOLDER [--write], from the root of the repository. `status_page.sh` installs the tools.
With --write, docs/status.png is redrawn.
"""

import json
import shutil
import sys
import urllib.request
from pathlib import Path

import grpc
import jsonschema
from playwright.sync_api import sync_playwright

from lab import Lab, client, free_port, sample, until

TARGET, *OPTIONS = sys.argv[1:]
PICTURE = Path("docs/status.png")
SCHEMA = json.loads(Path("docs/status.schema.json").read_text())
OUTAGE = "fedcba9876543210fedcba9876543210"
PHONE = {"width": 360, "height": 780}
DESKTOP = {"width": 1180, "height": 900}
LINKS = ["/", "/status", "/config", "/metrics", "/docs/status.md", "/docs/runbook.md"]
TEXTS = ["scm-gateway", "ready", "Connections", "Calls and watches", "Telemetry", "verified", "open, opened", "UPSTREAM_UNAVAILABLE"]


def configuration(folder, variables):
    """Writes a configuration with the emulator's project, and one whose SCM is down. Returns its path and the first id."""
    project = variables["HUAWEICLOUD_SDK_PROJECT_ID"]
    for part in ("AK", "SK"):
        path = folder / part.lower()
        path.write_text(variables[f"HUAWEICLOUD_SDK_{part}"])
        path.chmod(0o400)
    keys = f'ak_file = "{folder}/ak"\nsk_file = "{folder}/sk"\n'
    endpoints = {project: variables["SCM_GATEWAY__UPSTREAM__ENDPOINT"], OUTAGE: f"http://127.0.0.1:{free_port()}"}
    lists = [f'[[projects]]\nid = "{id}"\nendpoint = "{endpoint}"\n{keys}' for id, endpoint in endpoints.items()]
    path = folder / "scm-gateway.toml"
    upstream = '[upstream]\nattempts = 1\ncircuit_backoff = "5m"\ncircuit_max_backoff = "5m"\n'
    path.write_text(f'default_project = "{project}"\n{upstream}{"".join(lists)}')
    return path


def call(address, folder):
    """Makes a call that succeeds, and calls of the other project until its circuit opens."""
    messages, services = client(folder)
    with grpc.insecure_channel(address) as channel:
        stub = services.CertificateServiceStub(channel)
        stub.SaveInfo(sample(messages), timeout=10)
        failing = sample(messages)
        failing.project_id = OUTAGE
        codes = set()
        for _ in range(8):
            try:
                stub.SaveInfo(failing, timeout=10)
            except grpc.RpcError as error:
                codes.add(error.code())
        assert codes == {grpc.StatusCode.UNAVAILABLE}, codes


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def luminance(page):
    """Returns the brightness of the background, from 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")[:3]) / 3


def check_page(browser, url, scheme, viewport, scripts):
    """Opens the page. Nothing may be blocked or logged, and nothing may be wider than the window."""
    context = browser.new_context(color_scheme=scheme, viewport=viewport, java_script_enabled=scripts)
    page = context.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.on("request", lambda request: requests.append(request.url))
    answer = page.goto(url)
    what = f"{scheme}, {viewport['width']} px, JavaScript {'on' if scripts else 'off'}"
    assert answer.status == 200, (what, answer.status)
    assert "default-src 'none'" in answer.headers["content-security-policy"], what
    text = page.inner_text("body")
    missing = [one for one in TEXTS if one not in text]
    assert not missing, f"{what}: {missing} not in:\n{text}"
    assert [link.get_attribute("href") for link in page.query_selector_all("nav a")] == LINKS, what
    if scripts:
        widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], f"{what}: the page scrolls sideways: {widths}"
        assert (luminance(page) > 128) == (scheme == "light"), f"{what}: {luminance(page)}"
        assert page.evaluate("getComputedStyle(document.querySelector('main')).display") == "grid", f"{what}: no style"
    assert not problems, f"{what}: {problems}"
    assert requests == [url], f"{what}: {requests}"
    return context, page


def check_rebinding(browser, url):
    """A page whose name resolves to the gateway cannot read it."""
    port = url.rsplit(":", 1)[1].strip("/")
    page = browser.new_page()
    answer = page.goto(f"http://attacker.example:{port}/status")
    assert answer.status == 421, answer.status
    page.close()


def main():
    with Lab(TARGET) as lab:
        path = configuration(lab.folder, lab.emulator())
        names = ("SCM_GATEWAY__SERVER__LISTEN", "SCM_GATEWAY__ADMIN__LISTEN")
        ports = {name: f"127.0.0.1:{free_port()}" for name in names}
        lab.start([str(lab.target / "debug/scm-gateway"), "--config", str(path)], **ports)
        address, admin = ports.values()
        url = f"http://{admin}/"
        until("the gateway's start", lambda: get(url))
        call(address, lab.folder)
        status = json.loads(get(f"{url}status"))
        jsonschema.Draft202012Validator.check_schema(SCHEMA)
        jsonschema.validate(status, SCHEMA, format_checker=jsonschema.FormatChecker())
        states = {project["id"]: project["circuits"]["upstream"]["state"] for project in status["projects"]}
        assert states.pop(OUTAGE) == "open" and set(states.values()) == {"closed"}, states

        with sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--host-resolver-rules=MAP attacker.example 127.0.0.1"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
            for scheme in ("light", "dark"):
                for viewport in (PHONE, DESKTOP):
                    for scripts in (True, False):
                        context, page = check_page(browser, url, scheme, viewport, scripts)
                        name = f"{scheme}-{viewport['width']}.png"
                        page.screenshot(path=lab.folder / name, full_page=True)
                        if "--write" in OPTIONS and (scheme, viewport) == ("light", DESKTOP):
                            page.screenshot(path=PICTURE, full_page=True)
                        context.close()
            check_rebinding(browser, url)
            browser.close()
        print(f"The status page is the same in light and dark, wide and narrow; pictures in {lab.folder}.")
    assert f"]({PICTURE.name})" in Path("docs/status.md").read_text(), f"docs/status.md does not show {PICTURE}"


main()
