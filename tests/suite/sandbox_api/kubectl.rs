//! A real `kubectl` against the API machinery over HTTP: the one on the PATH, and those that KUBECTL_VERSIONS names
//! (paths, separated by colons).

#![allow(clippy::unwrap_used)]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use locktender::sandbox::{
    http::{self, Backend, Shared},
    kubeconfig,
};
use serde_json::{Value, json};

use super::deployment;

/// A served API and one `kubectl`.
struct Session {
    program: PathBuf,
    directory: tempfile::TempDir,
    backend: Arc<Shared>,
}

impl Session {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.directory.path());
        command.env("KUBECTL_EXTERNAL_DIFF", "diff -u -N");
        command.args(arguments.split_whitespace()).current_dir(self.directory.path());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, object: &Value) {
        std::fs::write(self.path(name), object.to_string()).unwrap();
    }

    /// Runs and returns what was printed; must succeed.
    fn run(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments}: {errors}", self.program.display());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and returns how it went.
    fn attempt(&self, arguments: &str) -> (bool, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

/// Runs `test` for every kubectl there is.
async fn with_kubectl(test: fn(&Session)) {
    let named = std::env::var_os("KUBECTL_VERSIONS").unwrap_or_default();
    let programs = std::env::split_paths(&named).filter(|path| path != Path::new("")).collect::<Vec<_>>();
    for program in std::iter::once(PathBuf::from("kubectl")).chain(programs) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = http::url(listener.local_addr().unwrap());
        let backend = Arc::new(Shared::new(7));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let server = tokio::spawn(http::serve(listener, backend.clone(), "secret".into(), None, stopped));
        let directory = tempfile::tempdir().unwrap();
        kubeconfig::write(&directory.path().join("kubeconfig"), &url, "secret").unwrap();
        let session = Session { program, directory, backend };
        tokio::task::spawn_blocking(move || test(&session)).await.unwrap();
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_applied_read_changed_and_deleted() {
    with_kubectl(|kubectl| {
        kubectl.write("web.json", &deployment());
        assert_eq!(kubectl.run("apply -f web.json"), "deployment.apps/web created\n");
        assert_eq!(kubectl.run("apply -f web.json"), "deployment.apps/web unchanged\n");
        let table = kubectl.run("get deployments");
        assert!(
            table.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    0/3     0            0 "),
            "{table}"
        );
        let wide = kubectl.run("get deploy/web -o wide");
        assert!(wide.contains("CONTAINERS   IMAGES                     SELECTOR"), "{wide}");
        assert_eq!(kubectl.run("get deploy -o name"), "deployment.apps/web\n");
        assert_eq!(kubectl.run("get deploy web -o jsonpath={.spec.replicas}"), "3");
        assert!(kubectl.run("get deploy -A -o yaml").contains("kind: List"));

        let mut changed = deployment();
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/web:2.0".into();
        kubectl.write("web.json", &changed);
        let (same, difference, _) = kubectl.attempt("diff -f web.json");
        assert!(!same && difference.contains("+      - image: registry.example/web:2.0"), "{difference}");
        assert_eq!(
            kubectl.run("apply -f web.json --dry-run=server"),
            "deployment.apps/web configured (server dry run)\n"
        );
        assert_eq!(kubectl.run("apply -f web.json"), "deployment.apps/web configured\n");
        assert_eq!(kubectl.attempt("diff -f web.json").1, "");

        assert_eq!(kubectl.run("scale deploy web --replicas=5"), "deployment.apps/web scaled\n");
        assert_eq!(kubectl.run("get deploy web -o jsonpath={.spec.replicas}"), "5");
        assert_eq!(kubectl.run("label deploy web tier=front"), "deployment.apps/web labeled\n");
        assert!(kubectl.run("annotate deploy web note=x").starts_with("deployment.apps/web annotate"));
        assert_eq!(kubectl.run("get deploy -l tier=front -o name"), "deployment.apps/web\n");
        assert_eq!(kubectl.run("get deploy -l tier!=front -o name"), "");
        assert_eq!(kubectl.run("get deploy --field-selector metadata.name=web -o name"), "deployment.apps/web\n");
        for (kind, body) in [
            ("strategic", r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"a:3"}]}}}}"#),
            ("merge", r#"{"spec":{"paused":true}}"#),
            ("json", r#"[{"op":"replace","path":"/spec/replicas","value":2}]"#),
        ] {
            assert_eq!(
                kubectl.run(&format!("patch deploy web --type {kind} -p {body}")),
                "deployment.apps/web patched\n"
            );
        }
        assert_eq!(
            kubectl.run(
                "get deploy web -o jsonpath={.spec.replicas}{.spec.paused}{.spec.template.spec.containers[0].image}"
            ),
            "2truea:3"
        );
        assert_eq!(kubectl.run("replace -f web.json"), "deployment.apps/web replaced\n");
        // Newer ones name the namespace, too.
        assert!(kubectl.run("delete deploy web --cascade=background").starts_with("deployment.apps \"web\" deleted"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_tells_conflicts() {
    with_kubectl(|kubectl| {
        kubectl.write("web.json", &deployment());
        assert_eq!(kubectl.run("apply --server-side -f web.json"), "deployment.apps/web serverside-applied\n");
        kubectl.run("scale deploy web --replicas=5");
        let (applied, _, errors) = kubectl.attempt("apply --server-side -f web.json");
        assert!(!applied, "{errors}");
        assert!(
            // The manager is named after the program.
            errors.contains("Apply failed with 1 conflict: conflict with \"kubectl")
                && errors.contains("\" with subresource \"scale\" using apps/v1: .spec.replicas"),
            "{errors}"
        );
        kubectl.run("apply --server-side --force-conflicts -f web.json");
        assert_eq!(kubectl.run("get deploy web -o jsonpath={.spec.replicas}"), "3");
        let dry = kubectl.run("apply --server-side --dry-run=server -f web.json");
        assert_eq!(dry, "deployment.apps/web serverside-applied (server dry run)\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_and_kinds_are_refused() {
    with_kubectl(|kubectl| {
        let mut wrong = deployment();
        wrong["spec"]["replcas"] = 3.into();
        kubectl.write("web.json", &wrong);
        let (created, _, errors) = kubectl.attempt("create -f web.json");
        assert!(!created && errors.contains("unknown field \"spec.replcas\""), "{errors}");
        let (created, _, errors) = kubectl.attempt("create -f web.json --validate=warn");
        assert!(created && errors.contains("Warning: unknown field \"spec.replcas\""), "{errors}");
        let (got, _, errors) = kubectl.attempt("get nonsense");
        assert!(!got && errors.contains("the server doesn't have a resource type \"nonsense\""), "{errors}");
        let (got, _, errors) = kubectl.attempt("get pod nothing");
        assert!(!got && errors.contains("Error from server (NotFound): pods \"nothing\" not found"), "{errors}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_discovered_and_custom_ones_served() {
    with_kubectl(|kubectl| {
        let kinds = kubectl.run("api-resources");
        assert!(kinds.contains("deployments"), "{kinds}");
        assert!(kubectl.run("version").contains("v1.36.1+locktender"));
        kubectl.write(
            "crd.json",
            &json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": "boats.example.com"},
                "spec": {
                    "group": "example.com", "scope": "Namespaced",
                    "names": {"kind": "Boat", "plural": "boats", "singular": "boat", "shortNames": ["bt"]},
                    "versions": [{
                        "name": "v1", "served": true, "storage": true,
                        "additionalPrinterColumns": [{"name": "Length", "type": "integer", "jsonPath": ".spec.length"}],
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                            "spec": {"type": "object", "properties": {"length": {"type": "integer"}}},
                        }}},
                    }],
                },
            }),
        );
        kubectl.run("apply -f crd.json");
        kubectl.run("wait --for=condition=Established crd/boats.example.com --timeout=10s");
        kubectl.write(
            "boat.json",
            &json!({"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "ada"}, "spec": {"length": 9}}),
        );
        assert_eq!(kubectl.run("apply -f boat.json"), "boat.example.com/ada created\n");
        assert_eq!(kubectl.run("get bt"), "NAME   LENGTH\nada    9\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_watched_and_waited_for() {
    with_kubectl(|kubectl| {
        kubectl.write("web.json", &deployment());
        kubectl.run("apply -f web.json");
        let mut watching = kubectl.command("get deploy -w -o name");
        let mut watching = watching.stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = std::io::BufReader::new(watching.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
        assert_eq!(line, "deployment.apps/web\n");
        kubectl.run("scale deploy web --replicas=1");
        line.clear();
        std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
        assert_eq!(line, "deployment.apps/web\n");
        watching.kill().unwrap();
        watching.wait().unwrap();

        let waiting = kubectl.command("wait --for=condition=Available deploy/web --timeout=20s").spawn().unwrap();
        let waiting_by_path =
            kubectl.command("wait --for=jsonpath={.status.readyReplicas}=1 deploy/web --timeout=20s").spawn().unwrap();
        kubectl.backend.with_api(|api| {
            let mut object = Value::clone(&api.get("deployments.apps", "default", "web").unwrap());
            object["status"] = json!({
                "replicas": 1, "readyReplicas": 1, "observedGeneration": object["metadata"]["generation"],
                "conditions": [{"type": "Available", "status": "True"}],
            });
            api.update(object, Some("status")).unwrap();
        });
        for mut waiting in [waiting, waiting_by_path] {
            assert!(waiting.wait().unwrap().success());
        }
        let mut gone = kubectl.command("wait --for=delete deploy/web --timeout=20s").spawn().unwrap();
        kubectl.run("delete deploy web --cascade=background");
        assert!(gone.wait().unwrap().success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_told() {
    with_kubectl(|kubectl| {
        let config = std::fs::read_to_string(kubectl.path("kubeconfig")).unwrap().replace("secret", "guess");
        std::fs::File::create(kubectl.path("kubeconfig")).unwrap().write_all(config.as_bytes()).unwrap();
        let (got, _, errors) = kubectl.attempt("get pods");
        assert!(!got && errors.contains("You must be logged in to the server"), "{errors}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_send_protobuf_are_understood() {
    with_kubectl(|kubectl| {
        assert_eq!(kubectl.run("create namespace shop"), "namespace/shop created\n");
        kubectl.run("create configmap settings --from-literal=a=b -n shop");
        kubectl.run("create secret generic key --from-literal=a=b -n shop");
        kubectl.run("create deployment web --image=registry.example/web:1.0 --replicas=2 --port=80 -n shop");
        kubectl.run("create service nodeport web --tcp=80:8080 -n shop");
        kubectl.run("create pdb web --selector=app=web --min-available=50% -n shop");
        kubectl.run("create ingress web --rule=a.example/*=web:80 -n shop");
        assert_eq!(kubectl.run("auth can-i create pods"), "yes\n");
        let read = |path: &str| kubectl.run(&format!("get -n shop -o jsonpath={path}"));
        assert_eq!(read("{.data} configmap/settings"), r#"{"a":"b"}"#);
        assert_eq!(read("{.data} secret/key"), r#"{"a":"Yg=="}"#);
        assert_eq!(
            read("{.spec.replicas}{.spec.template.spec.containers[0].ports[0]} deploy/web"),
            r#"2{"containerPort":80,"protocol":"TCP"}"#
        );
        assert_eq!(read("{.spec.ports[0].targetPort} svc/web"), "8080");
        assert_eq!(read("{.spec.minAvailable} pdb/web"), "50%");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_described_and_rollouts_handled() {
    with_kubectl(|kubectl| {
        kubectl.write("web.json", &deployment());
        kubectl.run("apply -f web.json");
        assert!(kubectl.run("describe deploy web").contains("StrategyType:           RollingUpdate"));
        assert!(kubectl.run("explain deployment.spec.strategy").contains("rollingUpdate"));
        kubectl.run("rollout restart deploy/web");
        kubectl.run("rollout pause deploy/web");
        kubectl.run("set image deploy/web web=registry.example/web:9");
        kubectl.run("expose deploy web --port=80");
        assert_eq!(kubectl.run("get all -o name"), "service/web\ndeployment.apps/web\n");
        kubectl.run("delete deploy web --cascade=foreground --wait=false");
        assert_eq!(kubectl.run("get deploy web -o jsonpath={.metadata.finalizers[0]}"), "foregroundDeletion");
    })
    .await;
}
