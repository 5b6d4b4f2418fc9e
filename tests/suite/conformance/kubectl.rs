//! A real `kubectl`: the one on the PATH, and those that KUBECTL_VERSIONS names (paths, separated by colons). Each minor
//! version has a transcript of its own; one that has none is passed over, and the test says so. CI's own has one.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use serde_json::{Value, json};

use super::{defaults::deployment, server::Server};

struct Kubectl {
    program: PathBuf,
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Kubectl {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.home.path()).current_dir(self.home.path());
        command
            .env("KUBECTL_EXTERNAL_DIFF", "diff -U 0 --label live --label merged -N -r")
            .env("KUBE_EDITOR", "./editor");
        command.arg("--namespace").arg(&self.namespace).args(arguments.split_whitespace());
        command
    }

    fn write(&self, name: &str, object: &Value) {
        std::fs::write(self.home.path().join(name), object.to_string()).unwrap();
    }

    /// Runs and returns what was printed, on both, and the exit code where it is not 0.
    fn run(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        let mut text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        if !output.status.success() {
            text += &format!("exit code {}\n", output.status.code().unwrap());
        }
        // Controllers of the sandbox tell no events; ages are what they are.
        let text = text.split("\nEvents:").next().unwrap().to_owned();
        let replaced = [
            (r"(?m) +<?[0-9]+m?s>?$", " <age>"),
            (r"(?m)\b[0-9]+m?s( +)", "<age>$1"),
            (r"(?m)^(CreationTimestamp|Start Time): .*$", "$1: <time>"),
            (r"/tmp/(LIVE|MERGED)-\d+/", "$1/"),
            (r"diff -U .*\n", ""),
            // A server up to 1.33 writes `creationTimestamp: null` in templates.
            (r"(?m)^@@ .* @@$", "@@ <lines> @@"),
            (r" +\n", "\n"),
        ];
        let text = replaced
            .into_iter()
            .fold(text, |text, (from, to)| Regex::new(from).unwrap().replace_all(&text, to).into_owned());
        if arguments.starts_with("explain") {
            // The sandbox has no descriptions.
            let told = |line: &&str| Regex::new("^[A-Z]+: |^  [a-z][A-Za-z]*\t").unwrap().is_match(line);
            return text.lines().filter(told).map(|line| format!("{line}\n")).collect();
        }
        if text.ends_with('\n') || text.is_empty() { text } else { text + "\n" }
    }

    /// `1.33`.
    fn minor(&self) -> String {
        let version = self.run("version --client -o json");
        let version: Value = serde_json::from_str(&version).unwrap();
        let text = |name: &str| version["clientVersion"][name].as_str().unwrap().trim_end_matches('+').to_owned();
        format!("{}.{}", text("major"), text("minor"))
    }
}

/// What people and scripts do with a release.
const SCRIPT: &[&str] = &[
    "apply -f web.json",
    "apply -f web.json",
    "get deployments",
    "get deploy/web -o wide",
    "get deploy -o name",
    "get deploy web -o jsonpath={.spec.replicas}{.spec.strategy}",
    "rollout status deploy/web --timeout=20s",
    "apply -f web-2.json --dry-run=server",
    "diff -f web-2.json",
    "apply -f web-2.json",
    "diff -f web-2.json",
    "scale deploy web --replicas=0",
    "label deploy web tier=front",
    "annotate deploy web note=x",
    "get deploy -l tier=front -o name",
    "get deploy -l tier!=front -o name",
    "get deploy --field-selector metadata.name=web -o name",
    "set image deploy/web web=registry.example/web:3.0",
    "set env deploy/web A=1",
    "rollout pause deploy/web",
    "rollout pause deploy/web",
    "rollout restart deploy/web",
    "rollout resume deploy/web",
    "patch deploy web --type merge -p {\"spec\":{\"minReadySeconds\":3}}",
    "patch deploy web --type json -p [{\"op\":\"test\",\"path\":\"/spec/minReadySeconds\",\"value\":9}]",
    "edit deploy web",
    "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}",
    "apply --server-side -f map.json",
    "apply --server-side --field-manager=other -f map-2.json",
    "apply --server-side --field-manager=other --force-conflicts -f map-2.json",
    "get configmap one -o jsonpath={.data} --show-managed-fields",
    "describe configmap one",
    "create configmap two --from-literal=a=b",
    "create configmap two --from-literal=a=b",
    "describe service web",
    "create service clusterip web --tcp=80:8080 --clusterip=None",
    "get service web",
    "create secret generic three --from-literal=a=b",
    "get secrets",
    "explain deployment.spec.replicas",
    "explain deployment.spec.strategy",
    "api-resources --api-group=apps --no-headers",
    "auth can-i create deployments",
    "events --for configmap/one",
    "wait --for=delete configmap/none --timeout=5s",
    "delete configmap two",
    "delete configmap two",
    "get configmap two --ignore-not-found",
    "delete deploy web --cascade=orphan",
    "get pods",
    "get nothing",
];

#[tokio::test(flavor = "multi_thread")]
async fn does_the_same_on_both() {
    let named = std::env::var_os("KUBECTL_VERSIONS").unwrap_or_default();
    let programs = std::env::split_paths(&named).filter(|path| path != Path::new("")).collect::<Vec<_>>();
    // An older server brings a kubectl that may be one of those.
    let mut seen = BTreeSet::new();
    for program in std::iter::once(PathBuf::from("kubectl")).chain(programs) {
        let mut server = Server::start().await;
        let home = tempfile::tempdir().unwrap();
        let kubectl =
            Kubectl { program, home, kubeconfig: server.kubeconfig.clone(), namespace: server.namespace.clone() };
        let version = kubectl.minor();
        if !seen.insert(version.clone()) {
            continue;
        }
        let golden = format!(
            "{}/tests/suite/conformance/golden/does_the_same_on_both@{version}.snap",
            env!("CARGO_MANIFEST_DIR")
        );
        let updates = std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always");
        if !updates && !Path::new(&golden).exists() {
            let is_own = kubectl.program == Path::new("kubectl");
            assert!(
                !is_own || std::env::var_os("CI").is_none(),
                "there is no transcript of CI's own kubectl {version}"
            );
            // Also where the test succeeds, when its output is kept back.
            let program = kubectl.program.display();
            writeln!(std::io::stderr(), "passed over: {program}: no transcript of kubectl {version}").unwrap();
            continue;
        }
        let mut web = deployment();
        // No nodes: its pods would never run.
        web["spec"]["replicas"] = 0.into();
        kubectl.write("web.json", &web);
        web["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/web:2.0".into();
        kubectl.write("web-2.json", &web);
        let map = |colour: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"colour": colour}});
        kubectl.write("map.json", &map("blue"));
        kubectl.write("map-2.json", &map("red"));
        let editor = kubectl.home.path().join("editor");
        std::fs::write(&editor, "#!/bin/sh\nsed -i 's/web:3.0/web:4.0/' \"$1\"\n").unwrap();
        std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for arguments in SCRIPT {
            let printed = kubectl.run(arguments);
            server.tell_text(&format!("$ kubectl {arguments}\n{printed}"));
        }
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "golden", snapshot_suffix => version }, {
            insta::assert_snapshot!(server.text())
        });
    }
}
