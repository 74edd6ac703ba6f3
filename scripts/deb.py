"""Install the Debian packages into clean roots of Debian 12 and 13; use, upgrade, remove, purge them there.

    sudo .venv/bin/python scripts/deb.py

Those for 64-bit ARM are unpacked and run emulated. `make soak` runs it too. Nothing of this machine changes
but build/ and dist/. Wants the Debian packages debhelper, debootstrap, g++-aarch64-linux-gnu, lintian and
qemu-user-static, a network, and to be root, as debootstrap must.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
SUITES: Final = ("bookworm", "trixie")
SAMPLE: Final = "turn-on-desk-lamp.flac"
WANTED: Final = {"text": "Turn on the desk lamp.", "intent": "HassTurnOn", "slots": {"name": "desk lamp"}}

MAX_MB: Final = 20.0
"""Of the program; the default model beside it, the two of them at most:"""
MAX_BOTH_MB: Final = 65.0

UNSHARE: Final = "/usr/bin/unshare"
USER: Final = ("setpriv", "--reuid=edgevoice", "--regid=edgevoice", "--init-groups")

START_S: Final = 60.0
"""For the service, on a busy machine."""

ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
}

# Without a system that runs: they may not be checked for a microphone, a broker, and who sets the clock.
ABSENT: Final = {"microphone", "broker", "clock", "heat"}


def main() -> int:
    """Build, check, and try in each root."""
    if os.geteuid():
        sys.exit("root is needed, for debootstrap and the roots it makes; try: sudo")
    here = run("dpkg", "--print-architecture").strip()
    packages, model = {}, Path()
    for arch in ("amd64", "arm64"):
        built = run(sys.executable, "deploy/debian/build.py", arch).splitlines()
        model, packages[arch] = sorted(ROOT / line.partition(":")[0] for line in built)
    run("lintian", "--fail-on=error,warning", *packages.values(), model)
    for arch, package in packages.items():
        own_mb, both_mb = megabytes(package), megabytes(package) + megabytes(model)
        expect(own_mb <= MAX_MB and both_mb <= MAX_BOTH_MB, f"{arch}: {own_mb:.1f} MB, {both_mb:.1f} MB")
        print(f"{package.name}: lintian content, {own_mb:.1f} MB, {both_mb:.1f} with the model", flush=True)
    for suite in SUITES:
        with tempfile.TemporaryDirectory() as name:
            make_root(suite, Path(name))
            try_packages(Path(name), packages[here], model)
        print(f"{suite}: installed, used, upgraded, removed, purged", flush=True)
    if here == "amd64":
        with tempfile.TemporaryDirectory() as name:
            answer = emulate(Path(name), packages["arm64"], model)
        print(
            f"arm64, emulated: {answer['text']!r} {answer['intent']} {answer['confidence']:.4f}", flush=True
        )
    return 0


def make_root(suite: str, root: Path) -> None:
    """A Debian as small as it can be, with the lists of apt."""
    run("debootstrap", "--variant=minbase", suite, root)
    root.chmod(0o755)  # a temporary folder is closed to the service's user
    within(root, "apt-get", "update", "--quiet")


def try_packages(root: Path, package: Path, model: Path) -> None:
    """What happens to a package in its life."""
    shutil.copy(ROOT / "samples" / SAMPLE, root / "srv")
    shutil.copy(package, root / "srv")
    shutil.copy(model, root / "srv")
    newer = repack(package, root / "srv")
    try_beside_installer(root, package)

    install(root, package, model)
    check_files(root)
    try_program(root)
    try_service(root)
    try_extras(root)

    settings = root / "etc/edgevoice/edgevoice.yaml"
    settings.write_text(settings.read_text().replace("site: default", "site: attic"))
    # The new one has another configuration. Asked nothing, dpkg does what it does by default.
    install(root, newer, options=("-o", "Dpkg::Options::=--force-confdef"))
    expect("site: attic" in settings.read_text(), "an upgrade took a changed configuration away")
    expect(Path(f"{settings}.dpkg-dist").is_file(), "an upgrade did not leave the new configuration beside")
    version = within(root, "dpkg-query", "--show", "--showformat=${Version}", "edgevoice")
    expect(version.endswith("+1"), f"after an upgrade the version is {version}")
    used = within(root, "edgevoice", "config", "show")
    expect("site: attic" in used, f"after an upgrade the configuration is {used}")
    recognise(root)
    refused = attempt(ROOT / "deploy/raspberrypi/install.sh", "--dry-run", DESTDIR=str(root))
    expect(refused.returncode == 1 and "apt purge edgevoice" in refused.stderr, f"install.sh: {refused}")

    within(root, "apt-get", "remove", "--quiet", "--yes", "edgevoice")
    expect("site: attic" in settings.read_text(), "removing took the configuration away")
    expect(not (root / "usr/lib/edgevoice").exists(), "removing left something in /usr/lib/edgevoice")
    (root / "var/lib/edgevoice/models/ggml-own.bin").touch()
    within(root, "apt-get", "purge", "--quiet", "--yes", "edgevoice")
    links = sorted(path for path in (root / "var/lib/edgevoice/models").iterdir())
    expect(
        len(links) == 2 and all(path.is_symlink() for path in links), f"beside the model's package: {links}"
    )
    within(root, "apt-get", "purge", "--quiet", "--yes", model.name.partition("_")[0])
    left = [path for path in root.rglob("*edgevoice*") if not path.is_relative_to(root / "srv")]
    expect(not left, f"purging left {left}")


def try_beside_installer(root: Path, package: Path) -> None:
    """Over what install.sh has made, the package does not install."""
    (root / "opt/edgevoice").mkdir()
    refused = attempt_within(root, "dpkg", "--install", f"/srv/{package.name}")
    expect("install.sh --uninstall" in refused.stderr, f"beside install.sh: {refused}")
    expect(not (root / "usr/lib/edgevoice").exists(), "unpacked beside install.sh")
    (root / "opt/edgevoice").rmdir()


def install(root: Path, *packages: Path, options: tuple[str, ...] = ()) -> None:
    """Have apt install packages and what they depend on."""
    files = [f"/srv/{package.name}" for package in packages]
    within(root, "apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *options, *files)


def check_files(root: Path) -> None:
    """Whose everything is, and that the service will start with the machine."""
    changed = within(root, "dpkg", "--verify", "edgevoice")
    expect(not changed, f"not as in the package: {changed}")
    user = within(root, "id", "edgevoice")
    expect("(edgevoice)" in user and "(audio)" in user, f"the user is {user}")
    for path, wanted in {
        "/etc/edgevoice/edgevoice.yaml": "root:root 644",
        "/usr/bin/edgevoice": "root:root 755",
        "/usr/lib/edgevoice": "root:root 755",
        "/var/lib/edgevoice": "edgevoice:edgevoice 755",
        "/var/lib/edgevoice/models": "edgevoice:edgevoice 755",
    }.items():
        seen = within(root, "stat", "--format=%U:%G %a", path).strip()
        expect(seen == wanted, f"{path} is {seen}, not {wanted}")
    enabled = within(root, "systemctl", "is-enabled", "edgevoice.service").strip()
    expect(enabled == "enabled", f"the service is {enabled}")
    compiled = list((root / "usr/lib/edgevoice/edgevoice/__pycache__").glob("cli.*.pyc"))
    expect(len(compiled) == 1, f"compiled: {compiled}")
    other = attempt_within(root, "python3", "-c", "import hassil")
    expect("ModuleNotFoundError" in other.stderr, f"other programs see our packages: {other}")


def try_program(root: Path) -> None:
    """The commands, as the service's user, and without a network."""
    version = within(root, "edgevoice", "--version")
    expect(version.startswith("edgevoice "), version)
    recognise(root)
    doctor = attempt_within(root, "runuser", "-u", "edgevoice", "--", "edgevoice", "doctor", "--json")
    states = {check["name"]: check["state"] for check in json.loads(doctor.stdout)}
    bad = {name for name, state in states.items() if state != "ok"}
    expect(bad <= ABSENT, f"doctor: {doctor.stdout}")


def recognise(root: Path) -> None:
    """A sample is understood."""
    command = ["runuser", "-u", "edgevoice", "--", "edgevoice", "recognize", "--json", f"/srv/{SAMPLE}"]
    answer = json.loads(within(root, *command, network=False))
    expect({key: answer[key] for key in WANTED} == WANTED, f"understood: {answer}")


def try_service(root: Path) -> None:
    """What the unit starts, without a network."""
    unit = (root / "usr/lib/systemd/system/edgevoice.service").read_text("utf-8")
    before, start = (
        next(line.partition("=")[2].lstrip("-").split() for line in unit.splitlines() if line.startswith(key))
        for key in ("ExecStartPre=", "ExecStart=")
    )
    within(root, *USER, *before, network=False)
    with serving(root, *start, network=False):
        pass


def try_extras(root: Path) -> None:
    """What the package brings, and what it says of what it does not: doing that helps."""
    sentences = within(root, "edgevoice", "grammar", "import", "home-assistant", network=False)
    expect("HassTurnOn" in sentences, f"imported: {sentences[:1000]}")
    with socket.create_server(("127.0.0.1", 0)) as page, socket.create_server(("127.0.0.1", 0)) as wyoming:
        ports = [each.getsockname()[1] for each in (page, wyoming)]
    (root / "srv/extras.yaml").write_text(
        f"model: {{name: tiny.en-q8_0}}\nweb: {{listen: '127.0.0.1:{ports[0]}'}}\n"
        f"wyoming: {{listen: 'tcp://127.0.0.1:{ports[1]}', announce: true}}\n"
    )
    start = ["edgevoice", "run", "--config", "/srv/extras.yaml", "--input", "unix:/run/sound"]
    refused = attempt_within(root, *start)
    remedy = refused.stderr.rpartition("; run: sudo apt install ")[2].split()
    expect(refused.returncode == 2 and len(remedy) == 1, f"without zeroconf: {refused}")
    within(root, "apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *remedy)
    with (
        serving(root, "edgevoice", "run", "--config", "/srv/extras.yaml", network=True) as said,
        urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=START_S) as answer,
    ):
        expect(b"edgevoice" in answer.read(), "the page is another")
    printed = "".join(said)
    expect("announced as edgevoice-default" in printed, f"not announced: {printed}")


@contextmanager
def serving(root: Path, *start: str, network: bool) -> Iterator[list[str]]:
    """Run the service as its user until the block ends; it must be ready, and end when told.

    Its log is in the list afterwards.
    """
    address = root / "srv/notify"
    log: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(address))
        notified.settimeout(START_S)
        address.chmod(0o777)
        spaces = ["--mount-proc", *([] if network else ["--net"])]
        with subprocess.Popen(
            [UNSHARE, *spaces, f"--root={root}", *USER, *start],
            env={**ENVIRONMENT, "NOTIFY_SOCKET": "/srv/notify"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as service:
            said: list[str] = []
            try:
                while not any("READY=1" in text for text in said):
                    said.append(notified.recv(4096).decode())
                yield log
            except TimeoutError:
                service.kill()
                sys.exit(f"the service is not ready after {START_S:.0f} s: {said} {service.communicate()[0]}")
            except BaseException:
                service.kill()
                raise
            service.terminate()
            log.append(service.communicate(timeout=START_S)[0])
    address.unlink()
    expect(service.returncode == 0, f"the service ended with {service.returncode}: {log[0]}")


def repack(package: Path, folder: Path) -> Path:
    """Make the next version of a package, with another configuration."""
    with tempfile.TemporaryDirectory() as name:
        run("dpkg-deb", "--raw-extract", package, name)
        control, settings = Path(name) / "DEBIAN/control", Path(name) / "etc/edgevoice/edgevoice.yaml"
        version = run("dpkg-deb", "--field", package, "Version").strip()
        text = control.read_text("utf-8").replace(f"Version: {version}\n", f"Version: {version}+1\n")
        control.write_text(text, "utf-8")
        settings.write_text(settings.read_text("utf-8") + "# The next version.\n", "utf-8")
        target = folder / package.name.replace(version, f"{version}+1")
        run("dpkg-deb", "--root-owner-group", "-Znone", "--build", name, target)
    return target


def emulate(folder: Path, package: Path, model: Path) -> dict[str, Any]:
    """Unpack Debian 12 for ARM with what the package depends on, and run it; nothing is configured."""
    root = folder / "root"
    depends = run("dpkg-deb", "--field", package, "Depends").split(",")
    named = [each.split()[0] for each in depends if each.strip().startswith("python3")]
    kind = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include={','.join(named)}"]
    run("debootstrap", *kind, "bookworm", root)
    for deb in [*(root / "var/cache/apt/archives").glob("*.deb"), package, model]:
        run("dpkg-deb", "--extract", deb, root)
    (folder / "slow.yaml").write_text("recognition:\n  timeout_s: 300\nmodel:\n  name: tiny.en-q8_0\n")
    libraries = root / "usr/lib/aarch64-linux-gnu"  # which Debian's alternatives would name
    command = [
        "qemu-aarch64-static", "-L", str(root), "-E",
        f"LD_LIBRARY_PATH={libraries / 'blas'}:{libraries / 'lapack'}", str(root / "usr/bin/python3"),
        "-m", "edgevoice", "recognize", "--config", str(folder / "slow.yaml"), "--json",
        str(ROOT / "samples" / SAMPLE),
    ]  # fmt: skip
    done = attempt(
        *command,
        cwd=root / "usr/lib/edgevoice",
        EDGEVOICE_MODELS=str(root / "usr/share/edgevoice/models"),
        PYTHONPATH=str(root / "usr/lib/edgevoice"),
    )
    expect(done.returncode == 0, f"emulated: {done.stderr}")
    answer = json.loads(done.stdout)
    expect({key: answer[key] for key in WANTED} == WANTED, f"emulated: {answer}")
    return dict(answer)


def megabytes(path: Path) -> float:
    """Size of a file."""
    return path.stat().st_size / 1e6


def expect(true: bool, otherwise: str) -> None:
    """End with what is wrong."""
    if not true:
        sys.exit(otherwise)


def within(root: Path, *command: str, network: bool = True) -> str:
    """Return what a program prints that runs in a root; one that fails ends this one."""
    done = attempt_within(root, *command, network=network)
    if done.returncode:
        sys.exit(f"{root.name}: {' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt_within(root: Path, *command: str, network: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program in a root; what it leaves running ends with it."""
    spaces = ["--fork", "--pid", "--kill-child", "--mount-proc", *([] if network else ["--net"])]
    return subprocess.run(
        [UNSHARE, *spaces, f"--root={root}", "--wd=/", *command],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def run(*command: str | Path) -> str:
    """Return what a program prints; one that fails ends this one."""
    done = attempt(*command)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine."""
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
