//! Manifests that this project did not write.

use locktender::core::rollout::report::Activity;

use super::*;
use crate::histories::release::Seen;

fn corpus(file: &str) -> String {
    std::fs::read_to_string(format!("{}/../shared/corpus/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn bookinfo_as_one_application_in_two_units() {
    let all = corpus("bookinfo/bookinfo.yaml");
    // productpage's replicas, and nothing else.
    let (before, productpage) = all.split_at(all.rfind("kind: Deployment").unwrap());
    let bookinfo = format!("{before}{}", productpage.replacen("replicas: 1", "replicas: 10", 1));
    assert_eq!(
        similar::TextDiff::from_lines(&all, &bookinfo)
            .iter_all_changes()
            .filter(|change| change.tag() != similar::ChangeTag::Equal)
            .count(),
        2
    );
    let app = app("").replace("name: checkout", "name: bookinfo");
    let files =
        [(POLICY_FILE, &*policy("", "")), ("apps/bookinfo/app.yaml", &app), ("apps/bookinfo/bookinfo.yaml", &bookinfo)];
    let mut told = Transcript::of("bookinfo", &files).await;
    told.complete(1).await;
    told.person("reviews 1.20.2", |clone| {
        let text = clone.read("apps/bookinfo/bookinfo.yaml").unwrap();
        clone.write("apps/bookinfo/bookinfo.yaml", &text.replace("1.20.1", "1.20.2"));
    });
    told.complete(2).await;
    told!(told);
}

#[tokio::test(start_paused = true)]
async fn podinfo_without_a_policy() {
    let app = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: podinfo}
spec: {namespace: podinfo, source: {path: ., kustomize: {}}}
";
    let files: Vec<(String, String)> = ["kustomization.yaml", "deployment.yaml", "service.yaml", "hpa.yaml"]
        .iter()
        // A real autoscaler would make it two pods, in its own time.
        .map(|file| {
            let text = corpus(&format!("podinfo/{file}")).replace("minReplicas: 2", "minReplicas: 1");
            (format!("apps/podinfo/{file}"), text)
        })
        .chain([("apps/podinfo/app.yaml".to_owned(), app.to_owned())])
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut told = Transcript::of("podinfo", &files).await;
    told.stable(1).await;
    told.person("podinfo 6.14.2", |clone| {
        clone.replace("apps/podinfo/deployment.yaml", "6.14.1", "6.14.2");
    });
    let released = |seen: &Seen| seen.is(2, Activity::Stable) && seen.versions().into_keys().eq(["6.14.2"]);
    told.until("it is released", released).await;
    told!(told);
}
