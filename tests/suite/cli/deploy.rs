//! What `deploy/` installs: rendered by the real `kubectl` (and `helm`, where it is), applied to the sandbox, and its
//! rights compared with what a controller asks for.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use super::{POLICY, Shell, running::Ground, whole::World};
use crate::support::{
    deployed::{self, kustomized, rendered},
    git::Remote,
};

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What roles allow, as `verb resource.group`, names aside.
fn allowed<'a>(roles: impl Iterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                allowed.extend(texts(&rule["verbs"]).map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    allowed
}

fn roles(objects: &[Value]) -> BTreeSet<String> {
    allowed(of_kind(objects, "ClusterRole").chain(of_kind(objects, "Role")))
}

/// What the roles that are bound in the whole cluster allow.
fn bound(objects: &[Value]) -> BTreeSet<String> {
    let names: BTreeSet<&str> =
        of_kind(objects, "ClusterRoleBinding").map(|one| one["roleRef"]["name"].as_str().unwrap()).collect();
    allowed(of_kind(objects, "ClusterRole").filter(|role| names.contains(name(role))))
}

#[test]
fn with_accounts_of_their_own_the_controller_may_change_nothing_but_its_state() {
    let bound = bound(&kustomized("tests/fixtures/tenants"));
    let changes = bound.iter().filter(|one| !["get ", "list ", "watch "].iter().any(|verb| one.starts_with(verb)));
    let changes: Vec<&str> = changes.map(String::as_str).collect();
    let own =
        ["create configmaps", "create events", "delete configmaps", "impersonate serviceaccounts", "patch configmaps"];
    assert_eq!(changes, own);
}

fn base() -> Vec<Value> {
    kustomized("deploy/kustomize/base")
}

fn arguments(objects: &[Value]) -> Vec<&str> {
    let deployment = of_kind(objects, "Deployment").next().unwrap();
    texts(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]).collect()
}

#[test]
fn the_base_is_applied_as_it_is_and_becomes_available() {
    let objects = base();
    let remote = Remote::with_files(&[("README.md", "nothing yet")]);
    let ground = Ground::new(&remote);
    deployed::apply(Path::new(&ground.kubeconfig), &objects);
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        let live = ground.kubectl(&["-n", "locktender", "get", kind, name(object)]);
        assert_eq!(name(&live), name(object), "{kind}");
    }
    let status = ["-n", "locktender", "rollout", "status", "deployment/locktender", "--timeout=60s"];
    let said = ground.kubectl_says(&status);
    assert!(said.contains("successfully rolled out"), "{said}");
}

#[test]
fn the_account_may_do_what_a_release_needs_and_not_everything() {
    let granted = roles(&base());
    for verb in granted.iter().chain(roles(&kustomized("deploy/kustomize/overlays/example")).iter()) {
        assert!(!verb.contains('*'), "{verb}");
    }
    assert!(!granted.iter().any(|one| one.ends_with(" secrets") || one.contains("rbac.authorization")), "{granted:?}");

    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: checkout}\nspec: {selector: {app: checkout}, ports: [{port: 80}]}\n";
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\ndata: {colour: COLOUR}\n";
    let deployment = |tag: &str| {
        let reads = "image: registry.example/checkout:TAG\n        envFrom: [{configMapRef: {name: colours}}]";
        let image = format!("image: registry.example/checkout:{tag}");
        super::deployment(tag).replace(&image, &reads.replace("TAG", tag))
    };
    let remote = Remote::with_files(&[
        ("apps/checkout/app.yaml", super::APP),
        ("apps/checkout/deployment.yaml", &deployment("1.9")),
        ("apps/checkout/service.yaml", service),
        ("apps/checkout/colours.yaml", &config.replace("COLOUR", "green")),
        ("policies/two-data-centers.yaml", &POLICY.replace("confirm: everyBatch", "confirm: none")),
    ]);
    let ada = remote.clone_as("Ada");
    let ground = Ground::new(&remote);
    let lease = ["--listen", "127.0.0.1:0", "--lease-namespace", "kube-system"];
    let _controller = ground.controller("a", &lease);
    let world = World { shell: &ground.shell, here: ada.path(), kubeconfig: ground.kubeconfig.clone() };
    world.until("1.9 is stable", |status| status["activity"] == "stable" && status["rollout"] == "checkout/0001");
    // One in place, one that makes new slices and drops old ones, one that takes a Service away.
    for (number, message) in [(2, "2.0"), (3, "blue")] {
        ada.pull();
        ada.write("apps/checkout/deployment.yaml", &deployment("2.0"));
        if number == 3 {
            ada.write("apps/checkout/colours.yaml", &config.replace("COLOUR", "blue"));
            ada.remove("apps/checkout/service.yaml");
        }
        ada.commit(message);
        ada.push_within(10).unwrap();
        let rollout = format!("checkout/{number:04}");
        world.until(message, |status| status["activity"] == "stable" && status["rollout"] == rollout.as_str());
    }

    let (_, text) = ground.asks("a", "/metrics").unwrap();
    let counted = regex::Regex::new(r#"locktender_api_requests_total\{verb="([a-z]+)",resource="([^"]*)""#).unwrap();
    let mut asked = BTreeSet::new();
    for found in counted.captures_iter(&text) {
        let resource = &found[2];
        // An apply is a patch, which also needs the right to create where it does.
        match &found[1] {
            "discover" => {}
            "apply" => asked.extend([format!("patch {resource}"), format!("create {resource}")]),
            verb => drop(asked.insert(format!("{verb} {resource}"))),
        }
    }
    for needed in [
        "patch pods",
        "create replicasets.apps",
        "delete services",
        "create events",
        "create leases.coordination.k8s.io",
    ] {
        assert!(asked.contains(needed), "{needed} is not asked for: {asked:?}");
    }
    let missing: Vec<_> = asked.difference(&granted).collect();
    assert!(missing.is_empty(), "asked for and not granted: {missing:?}");
}

#[test]
fn names_that_must_agree_do() {
    let shell = Shell::new();
    let help = shell.run(shell.home.path(), &["run", "--help"]).stdout;
    for objects in [base(), kustomized("deploy/kustomize/overlays/example")] {
        let settings = of_kind(&objects, "ConfigMap").next().unwrap();
        for variable in settings["data"].as_object().unwrap().keys() {
            assert!(help.contains(&format!("[env: {variable}=]")), "{variable} is no option of `run`");
        }
        let deployment = of_kind(&objects, "Deployment").next().unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["envFrom"][0]["configMapRef"]["name"], settings["metadata"]["name"]);
        for argument in arguments(&objects).into_iter().skip(1) {
            let option = argument.split('=').next().unwrap();
            assert!(help.contains(option), "{option} is no option of `run`");
        }
        // Kustomize renames what it takes for a reference.
        let lease = arguments(&objects).into_iter().find_map(|one| one.strip_prefix("--lease-name=")).unwrap();
        let role = of_kind(&objects, "Role").next().unwrap();
        let named: Vec<&str> =
            role["rules"].as_array().unwrap().iter().flat_map(|rule| texts(&rule["resourceNames"])).collect();
        assert_eq!(named, [lease]);
    }
}

/// The chart, rendered; `None` where there is no `helm`.
#[allow(clippy::print_stdout)] // For people who read the output.
fn chart(more: &[&str]) -> Option<Vec<Value>> {
    if Command::new("helm").arg("version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI builds helm");
        println!("skipped: there is no helm here; .ci/run builds one");
        return None;
    }
    let args =
        ["template", "locktender", "deploy/helm/locktender", "--namespace", "locktender", "--kube-version", "1.33.0"];
    Some(rendered("helm", &[&args[..], more].concat()))
}

#[test]
fn the_chart_grants_what_the_base_grants() {
    let Some(plain) = chart(&[]) else { return };
    assert_eq!(roles(&plain), roles(&base()));
    assert_eq!(arguments(&plain), arguments(&base()));
    let kinds = |objects: &[Value]| -> BTreeSet<String> {
        objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    };
    let mut expected = kinds(&base());
    // Helm makes it with `--create-namespace`.
    expected.remove("Namespace");
    assert_eq!(kinds(&plain), expected);
    let all = chart(&[
        "--set=rbac.secrets=true,serviceMonitor.create=true,settings.LOCKTENDER_QPS=50",
        "--set-json=rbac.additional=[{\"apiGroups\":[\"gateway.networking.k8s.io\"],\"resources\":[\"httproutes\"]}]",
    ])
    .unwrap();
    let granted = roles(&all);
    for needed in ["patch secrets", "list secrets", "delete httproutes.gateway.networking.k8s.io"] {
        assert!(granted.contains(needed), "{needed}");
    }
    assert!(of_kind(&all, "ServiceMonitor").count() == 1);
    let tenants = chart(&["--set=rbac.tenants=true"]).unwrap();
    assert_eq!(bound(&tenants), bound(&kustomized("tests/fixtures/tenants")));
}

#[test]
fn the_charts_switches_grant_what_the_components_grant() {
    let components = kustomized("tests/fixtures/rights");
    let more = [
        ("gatewayApi", "httproutes.gateway.networking.k8s.io"),
        ("istio", "virtualservices.networking.istio.io"),
        ("istio", "destinationrules.networking.istio.io"),
        ("secrets", "secrets"),
    ];
    // Accounts of tenants change it, the controller itself only looks.
    let (all, own) = (roles(&components), bound(&components));
    for (_, resource) in more {
        for verb in ["get", "list", "watch"] {
            assert!(own.contains(&format!("{verb} {resource}")), "{verb} {resource}");
        }
        for verb in ["create", "patch", "delete"] {
            let right = format!("{verb} {resource}");
            assert!(all.contains(&right) && !own.contains(&right), "{right}");
        }
    }
    let every = "--set=rbac.gatewayApi=true,rbac.istio=true,rbac.secrets=true,rbac.tenants=true";
    let Some(switched) = chart(&[every]) else { return };
    assert_eq!(roles(&switched), all);
    assert_eq!(bound(&switched), own);
    for (switch, resource) in more {
        let alone = chart(&[&format!("--set=rbac.{switch}=true")]).unwrap();
        assert!(bound(&alone).contains(&format!("patch {resource}")), "{switch}");
    }
}

#[test]
fn servers_of_metrics_are_shown_what_is_mounted_for_them() {
    let mounted = |objects: &[Value]| {
        let pod = of_kind(objects, "Deployment").next().unwrap()["spec"]["template"]["spec"].clone();
        let option = arguments(objects).into_iter().find_map(|one| one.strip_prefix("--metrics-credentials="));
        let below = option.map(|directory| format!("{directory}/"));
        let volumes = pod["volumes"].as_array().unwrap();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().filter_map(|mount| {
            let name = mount["mountPath"].as_str()?.strip_prefix(below.as_deref()?)?;
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            assert_eq!(mount["readOnly"], true);
            Some((name.to_owned(), volume["secret"]["secretName"].as_str()?.to_owned()))
        });
        (option.is_some(), mounts.collect::<Vec<_>>())
    };
    let secret = |name: &str| (name.to_owned(), name.to_owned());
    let component = kustomized("tests/fixtures/metrics-credentials");
    assert_eq!(mounted(&component), (true, vec![secret("locktender-metrics")]));
    assert_eq!(roles(&component), roles(&base()), "the kubelet reads the Secret, the controller its files");
    assert_eq!(mounted(&base()), (false, Vec::new()));
    let Some(two) = chart(&["--set=metrics.secrets={locktender-metrics,another}"]) else { return };
    assert_eq!(mounted(&two), (true, vec![secret("locktender-metrics"), secret("another")]));
    let one = chart(&["--set=metrics.secrets={locktender-metrics}"]).unwrap();
    assert_eq!(arguments(&one), arguments(&component));
}
