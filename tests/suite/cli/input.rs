//! What people type and write: problems with their places, wrong usage, help that is enough.

use super::{Shell, Transcript, checkout};

const COMMANDS: &[&str] = &[
    "run",
    "sandbox",
    "validate",
    "schema",
    "plan",
    "diff",
    "status",
    "watch",
    "history",
    "confirm",
    "promote",
    "pause",
    "resume",
    "retry",
    "abort",
    "revert",
    "give-back",
    "completion",
];

#[test]
fn every_problem_is_told_with_its_place() {
    let (_remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("validate"));
    seen.see(&shell, ada.path(), &["validate"]);
    ada.write("policies/two-data-centers.yaml", &super::POLICY.replace("batchSize", "batchsize"));
    let search = super::APP.replace("checkout", "search").replace("two-data-centers", "two-data-centres");
    ada.write("apps/search/app.yaml", &search);
    let fine = super::APP.replace("checkout", "cart").replace("  policy: two-data-centers\n", "");
    ada.write("apps/cart/app.yaml", &fine);
    ada.write(".gitignore", "scratch/\n").write("scratch/apps.yaml", "kind: [");
    seen.note("nothing of this is committed").see(&shell, ada.path(), &["validate"]);
    let told = shell.run(ada.path(), &["validate", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let places: Vec<_> = told["problems"].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect();
    assert!(!places.is_empty() && places.iter().all(|line| *line > 0), "{told}");
    assert_eq!(told["fine"], serde_json::json!(["cart"]));
    assert!(ada.git(&["status", "--porcelain"]).contains("?? apps/search/"), "validate leaves the index alone");
    seen.matches();
}

#[test]
fn one_application_is_validated_alone_and_a_directory_that_is_none_is_warned_of() {
    let (_remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("validate-one"));
    ada.write("apps/search/app.yaml", &super::APP.replace("checkout", "search").replace("two-data-centers", "none"));
    ada.write("apps/forgotten/config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: forgotten}\n");
    ada.write("apps/notes/README.md", "no manifests here\n");
    for args in [&["validate", "checkout"][..], &["validate", "search"], &["validate", "serch"], &["validate"]] {
        seen.see(&shell, ada.path(), args);
    }
    std::fs::remove_dir_all(ada.path().join("apps/search")).unwrap();
    seen.note("only the warning is left").see(&shell, ada.path(), &["validate"]);
    let told = shell.run(ada.path(), &["validate", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["warnings"].as_array().unwrap().len(), 1);
    ada.commit("forgotten");
    ada.push();
    seen.see(&shell, ada.path(), &["status"]);
    seen.matches();
}

#[test]
fn a_directory_that_is_no_repository_is_validated_too() {
    let shell = Shell::new();
    let example = format!("{}/examples/two-data-centers", env!("CARGO_MANIFEST_DIR"));
    let ran = shell.run(shell.home.path(), &["validate", &example]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "checkout is fine\n"), "{}", ran.stdout);
}

#[test]
fn wrong_usage_is_told_with_a_hint() {
    let (_remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("usage"));
    for args in
        [&["statsu"][..], &["confirm"], &["schema", "policy"], &["status", "-o", "xml"], &["run", "--poll", "0s"]]
    {
        seen.see(&shell, ada.path(), args);
    }
    seen.see(&shell, ada.path(), &["sandbox", "--kubeconfig", "kc", "--units", "dca"]);
    seen.see(&shell, ada.path(), &["sandbox", "--kubeconfig", "kc", "--listen", "0.0.0.0:0"]);
    seen.see(&shell, ada.path(), &["schema"]);
    seen.matches();
}

#[test]
fn help_is_enough_to_use_a_command() {
    let shell = Shell::new();
    for command in COMMANDS {
        let ran = shell.run(shell.home.path(), &[command, "--help"]);
        assert_eq!(ran.code, 0, "{command}");
        assert!(
            ran.stdout.contains("Example") && ran.stdout.contains(&format!("locktender {command}")),
            "{}",
            ran.stdout
        );
        assert!(*command == "completion" || ran.stdout.contains("Exit codes:"), "{}", ran.stdout);
        let about = ran.stdout.split("Usage:").next().unwrap().trim();
        assert!(
            *command == "completion" || about.contains("\n\n"),
            "no more than a line is said of it: {}",
            ran.stdout
        );
    }
    for command in ["log", "verify", "accept"] {
        let ran = shell.run(shell.home.path(), &["audit", command, "--help"]);
        assert!(ran.stdout.contains("Example") && ran.stdout.contains("Exit codes:"), "{}", ran.stdout);
    }
    let help = |command: &str| shell.run(shell.home.path(), &[command, "--help"]).stdout;
    assert_eq!(help("release"), help("give-back"), "it was called so first");
    assert!(shell.run(shell.home.path(), &["completion", "bash"]).stdout.contains("_locktender"));
    assert!(shell.run(shell.home.path(), &["man"]).stdout.contains(".TH locktender"));
    let schema = shell.run(shell.home.path(), &["schema", "application"]).stdout;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&schema).unwrap()["properties"]["kind"]["const"],
        "Application"
    );
}

#[test]
fn schemas_are_printed_as_programs_ask_for_them() {
    let shell = Shell::new();
    let ran = |args: &[&str]| shell.run(shell.home.path(), args).stdout;
    let json: serde_json::Value = serde_json::from_str(&ran(&["schema", "decision"])).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran(&["schema", "decision", "-o", "json"])).unwrap(), json);
    assert_eq!(serde_yaml::from_str::<serde_json::Value>(&ran(&["schema", "decision", "-o", "yaml"])).unwrap(), json);
    let kinds: serde_json::Value = serde_json::from_str(&ran(&["schema", "-o", "json"])).unwrap();
    assert_eq!((&kinds[0]["kind"], &kinds[1]["kind"]), (&"application".into(), &"decision".into()));
}

#[test]
fn the_examples_are_fine_kustomize_directories_as_well() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["configuration", "kustomize", "small", "two-data-centers"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_locktender"))
            .arg("validate")
            .arg(examples.join(name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
