//! A release that is measured by a server which asks who is there, by the controller's program.

use crate::support::{git::Remote, measures::Server, tls::Authority};

use super::{running::Ground, whole::World};

const POLICY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: two-data-centers}
spec:
  metrics:
    rates:
      web: {url: 'https://ADDRESS/shop/rates'}
      successCondition: result.rate >= 0.99
      errorLimit: 0
  strategy:
    canary:
      steps:
      - setWeight: 20
      - analysis: {metrics: [rates]}
";

#[test]
fn a_refused_token_stops_a_release_and_another_lets_it_go_on_and_neither_is_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let authority = Authority::new();
    let server = runtime.block_on(Server::start(Some(authority.server(false))));
    server.ask_for("Bearer f1rst-t0ken");
    let remote = Remote::with_files(&[
        ("apps/checkout/app.yaml", super::APP),
        ("apps/checkout/deployment.yaml", &super::deployment("1.9")),
        ("policies/two-data-centers.yaml", &POLICY.replace("ADDRESS", &server.address.to_string())),
    ]);
    let ada = remote.clone_as("Ada");
    let ground = Ground::new(&remote);
    let directory = ground.shell.home.path().join("metrics");
    let write = |name: &str, content: &str| {
        std::fs::create_dir_all(directory.join("shop")).unwrap();
        std::fs::write(directory.join("shop").join(name), content).unwrap();
    };
    write("url", &format!("https://{}/shop", server.address));
    write("ca.crt", &authority.certificate());
    write("bearerToken", "f1rst-t0ken");
    let _controller = ground.controller("a", &["-vv", "--metrics-credentials", &directory.display().to_string()]);
    let world = World { shell: &ground.shell, here: ada.path(), kubeconfig: ground.kubeconfig.clone() };
    world.until("1.9 is stable", |status| status["activity"] == "stable" && status["rollout"] == "checkout/0001");

    server.ask_for("Bearer sec0nd-t0ken");
    ada.pull();
    ada.write("apps/checkout/deployment.yaml", &super::deployment("2.0"));
    ada.commit("checkout 2.0");
    ada.push_within(10).unwrap();
    world.until("2.0 stops", |status| status["activity"] == "stopped");
    ada.pull();
    let journal = ada.read("rollouts/checkout/0002/journal.yaml").unwrap();
    assert!(journal.contains("rates could not be measured"), "{journal}");
    assert!(journal.contains("it answers 401: the credentials `shop` are refused: who is `Bearer ***`?"), "{journal}");

    write("bearerToken", "sec0nd-t0ken");
    let retried = ground.shell.run(ada.path(), &["retry", "checkout"]);
    assert_eq!(retried.code, 0, "{}", retried.transcript());
    world.until("2.0 is stable", |status| status["activity"] == "stable" && status["rollout"] == "checkout/0002");
    ada.pull();
    let journal = ada.read("rollouts/checkout/0002/journal.yaml").unwrap();
    assert!(journal.contains("Bearer ***"), "what the server said is in the record: {journal}");
    let verified = ground.shell.run(ada.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.transcript());

    let history = ada.git(&["log", "-p", "--all"]);
    let cluster = ground.kubectl_says(&["get", "events,configmaps,deployments,pods,replicasets", "-A", "-o", "yaml"]);
    let status = ground.shell.run(ada.path(), &["status", "-o", "yaml", "--kubeconfig", &ground.kubeconfig]);
    assert!(history.contains("Bearer ***") && cluster.contains("checkout"), "they have something");
    for (what, text) in
        [("Git", history), ("the log", ground.said("a")), ("the cluster", cluster), ("status", status.stdout)]
    {
        assert!(!text.contains("t0ken"), "{what} has a token");
    }
}
