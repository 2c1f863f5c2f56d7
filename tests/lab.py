"""A JupyterLab server of one's own and a headless chromium, for tests and benchmarks."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

#: Debian's name for it, and others'.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
#: Why a test is skipped.
MISSING = "no chromium on the PATH: install it (Debian: apt-get install chromium) to run this"

_TOKEN = "t"
_QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
_SETTINGS = {
    # Cells outside the window are drawn too, so that a test can look at them.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}


@contextmanager
def server(root: Path, scratch: Path, theme: str = "JupyterLab Light"):
    """Serve ``root`` with settings of its own below ``scratch``; yields the address of files."""
    settings = {**_SETTINGS}
    settings["@jupyterlab/apputils-extension/themes.jupyterlab-settings"] = {"theme": theme}
    for name, values in settings.items():
        path = scratch / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {"SETTINGS": "settings", "WORKSPACES": "workspaces"}
    env = {f"JUPYTERLAB_{key}_DIR": str(scratch / name) for key, name in folders.items()}
    env |= {"JUPYTER_RUNTIME_DIR": str(scratch / "runtime"), "IPYTHONDIR": str(scratch / "ipython")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--port-retries=0",
        f"--IdentityProvider.token={_TOKEN}", f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    with (scratch / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={_TOKEN}", process, log.name)
            yield f"http://127.0.0.1:{port}/lab/tree/{{path}}?token={_TOKEN}&reset"
        finally:
            process.terminate()  # the server ends its kernels
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(address, process, log, limit_s=300):
    deadline = time.monotonic() + limit_s
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            late = time.monotonic() > deadline
            if late or process.poll() is not None:
                raise RuntimeError(f"JupyterLab did not start:\n{Path(log).read_text()}") from None
            time.sleep(0.1)


@contextmanager
def browser():
    """A headless chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            yield chromium
        finally:
            chromium.close()


class Notebook:
    """A notebook in a page of its own, and all that went wrong on that page."""

    def __init__(self, chromium, address: str, limit_s: float = 400):
        self.page = chromium.new_page(viewport={"width": 1300, "height": 1500})
        self.page.set_default_timeout(limit_s * 1000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")

    def _console(self, message):
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _request(self, request):
        if request.url.startswith("http") and not request.url.startswith("http://127.0.0.1:"):
            self.faults.append(f"request to elsewhere: {request.url}")

    def run_all(self):
        """Run all cells, as the menu does, and wait until none waits or runs."""
        self.page.evaluate(_RUN_ALL)
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")

    def errors(self) -> list[str]:
        """What the cells raised, and cells that have not run."""
        return self.page.evaluate(_ERRORS)

    def close(self):
        """Close the page and end its kernel, which would go on to hold its memory."""
        self.page.evaluate(_SHUT_DOWN)
        self.page.close()

    def press(self, selector: str, key: str) -> bool:
        """Press a key on a control; True if what is written beside it changes in 10 seconds."""
        from playwright.sync_api import TimeoutError

        control = self.page.locator(selector).first
        control.scroll_into_view_if_needed()
        control.focus()
        before = control.evaluate(_SHOWN)
        self.page.keyboard.press(key)
        changed = f"([control, old]) => ({_SHOWN})(control) !== old"
        try:
            handle = [control.element_handle(), before]
            self.page.wait_for_function(changed, arg=handle, timeout=10_000)
        except TimeoutError:
            return False
        return True


#: Waits for the kernel first: one that is still starting takes no notice of the command.
_RUN_ALL = """async () => {
  const session = window.jupyterapp.shell.currentWidget.sessionContext;
  await session.ready;
  await session.session.kernel.info;
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""
_SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
_ERRORS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(
  cell => cell.type === "code" && cell.sharedModel.source.trim()).flatMap(cell => [
    ...cell.outputs.toJSON().filter(output => output.output_type === "error").map(
      output => `${output.ename}: ${output.evalue}`),
    ...(cell.executionCount ? [] : [`not run: ${cell.sharedModel.source}`])])"""
#: Texts and pictures of the widget that a control belongs to.
_SHOWN = """control => [
  ...control.closest(".jp-OutputArea-output").querySelectorAll(".widget-html")
].map(part => part.innerHTML).join()"""
