//! Changes of what cannot be changed: said beforehand, put in place as a whole or not at all.

use locktender::core::rollout::report::Activity;

use super::{
    checkout::{DEPLOYMENT, SERVICE, SERVICE_FILE},
    release::{Place, Release, Seen},
};

const JOB_FILE: &str = "apps/checkout/job.yaml";
const SET_FILE: &str = "apps/checkout/set.yaml";
const NOTE_FILE: &str = "apps/checkout/note.yaml";
const NOTE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\ndata: {is: there}\n";
const JOB: &str = "apis/batch/v1/namespaces/shop/jobs/migrate";

/// Suspended: its template stays what it is all the same.
fn job(tag: &str) -> String {
    format!(
        "\
apiVersion: batch/v1
kind: Job
metadata: {{name: migrate}}
spec:
  suspend: true
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: migrate, image: 'registry.example/migrate:{tag}'}}]
"
    )
}

fn set(size: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: store}}
spec:
  replicas: 0
  serviceName: store
  selector: {{matchLabels: {{app: store}}}}
  template:
    metadata: {{labels: {{app: store}}}}
    spec:
      containers: [{{name: store, image: 'registry.example/store:1'}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}
"
    )
}

fn replaceable(manifest: &str) -> String {
    manifest.replacen("metadata: {", "metadata: {annotations: {locktender.dev/replace: 'true'}, ", 1)
}

fn is_held(seen: &Seen, words: &[&str]) -> bool {
    let activity = seen.report.as_ref().map(|report| report.activity);
    activity == Some(Activity::Held) && words.iter().all(|word| seen.reasons().contains(word))
}

async fn uid(release: &Release) -> String {
    let job = release.get(JOB, "jobs.batch").await;
    job.map(|job| job["metadata"]["uid"].as_str().unwrap().to_owned()).unwrap_or_default()
}

async fn installed(place: Place) -> Release {
    let release = Release::checkout_with(place, &[(JOB_FILE, &job("1")), (SET_FILE, &set("1Gi"))]).await;
    release.install().await;
    release
}

async fn fault_64_what_cannot_be_changed_is_said_beforehand_and_nothing_is_put_in_place(place: Place) {
    let release = installed(place).await;
    let before = release.seen("checkout").await.identities();
    release.commit("2.0, and what cannot be", |clone| {
        clone.replace(DEPLOYMENT, "checkout:1.9", "checkout:2.0");
        clone.write(SERVICE_FILE, &SERVICE.replace("ports:", "clusterIP: None\n  ports:"));
        clone.write(JOB_FILE, &job("2"));
        clone.write(SET_FILE, &set("2Gi"));
        clone.write(NOTE_FILE, NOTE);
    });
    let objects = ["Service/checkout in shop", "Job/migrate in shop", "StatefulSet/store in shop"];
    release.until("checkout", "it is held", |seen| is_held(seen, &objects)).await;
    release.rest().await;
    let seen = release.seen("checkout").await;
    assert!(is_held(&seen, &objects), "{}", seen.reasons());
    assert_eq!(seen.identities(), before);
    assert_eq!(seen.ledger.keys().copied().collect::<Vec<_>>(), [1], "no rollout was opened");
    let note = "api/v1/namespaces/shop/configmaps/note";
    assert!(release.get(note, "configmaps").await.is_none(), "nothing of it is put in place");

    release.commit("only what can be", |clone| {
        clone.write(SERVICE_FILE, SERVICE);
        clone.write(JOB_FILE, &job("1"));
        clone.write(SET_FILE, &set("1Gi"));
    });
    release.pass("beta", 2).await;
    release.pass("batch-1", 2).await;
    let seen = release.until("checkout", "2.0 is released", |seen| seen.is(2, Activity::Stable)).await;
    assert_eq!(seen.pods(), "2.0: 10");
}

async fn a_selector_is_never_replaced(place: Place) {
    let release = installed(place).await;
    release.commit("another selector", |clone| {
        let text = clone.read(DEPLOYMENT).unwrap();
        let text = text.replace("{app: checkout}", "{app: checkout, tier: front}");
        clone.write(DEPLOYMENT, &replaceable(&text));
    });
    let held = |seen: &Seen| is_held(seen, &["Deployment/checkout in shop", "immutable"]);
    let seen = release.until("checkout", "it is held", held).await;
    assert_eq!(seen.pods(), "1.9: 10");
}

async fn what_may_be_replaced_is(place: Place) {
    let release = installed(place).await;
    let before = uid(&release).await;
    release.commit("a template that does not fit, and may be replaced", |clone| {
        clone.write(JOB_FILE, &replaceable(&job("2").replace("restartPolicy: Never", "restartPolicy: Always")));
    });
    release.until("checkout", "it is held", |seen| is_held(seen, &["Job/migrate in shop"])).await;
    assert_eq!(uid(&release).await, before, "what would not come again is not deleted");

    release.commit("one that does", |clone| {
        clone.write(JOB_FILE, &replaceable(&job("2")));
    });
    // A change that is staged by nothing: no rollout.
    let began = tokio::time::Instant::now();
    loop {
        let now = uid(&release).await;
        let seen = release.seen("checkout").await;
        if !now.is_empty() && now != before && seen.is(1, Activity::Stable) {
            break;
        }
        assert!(began.elapsed().as_secs() < 120, "never replaced: {}", seen.reasons());
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
    }
    let job = release.get(JOB, "jobs.batch").await.unwrap();
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["image"], "registry.example/migrate:2");
}

play!(
    fault_64_what_cannot_be_changed_is_said_beforehand_and_nothing_is_put_in_place,
    a_selector_is_never_replaced,
    what_may_be_replaced_is,
);
