//! JSON Schema (draft 2020-12) of everything that people write, for editors and CI.
//!
//! The schema says what a single file can look like; `locktender validate` also checks what only several fields or files
//! together show. Written by hand, beside the readers: messages are made by these, so they cannot be derived from types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{API_VERSION, health_check::LONGEST, read::MOST_PODS, settings::MOST_CONCURRENT};

const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
const NAME: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
const LABEL_VALUE: &str = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const QUALIFIED: &str = "^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const FINALIZER: &str = "^[a-z0-9.-]{1,253}/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const SERVER: &str = "^https?://[^@?# {]+$";
const PERCENT: &str = "^(100|[1-9]?[0-9])%$";
const PERCENT_FROM_ONE: &str = "^(100|[1-9][0-9]?)%$";
const DIGEST: &str = "^(sha256:)?[0-9a-f]{8,64}$";
const TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
const DURATION: &str =
    "^([0-9]+ *(nsec|ns|usec|us|msec|millis|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hr|h|days?|d) *)+$";

/// Returns all schemas by the name of what they are about: `application`, `decision`, `freeze`, `rolloutpolicy`,
/// `settings`.
pub fn all() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("application", envelope("Application", "apps/<app>/app.yaml: what is released as a unit", application())),
        ("rolloutpolicy", envelope("RolloutPolicy", "policies/<name>.yaml: how applications are released", policy())),
        ("freeze", envelope("Freeze", "freezes/<name>.yaml: nothing advances while it applies", freeze())),
        ("decision", top("a file by which a person confirms, promotes, aborts, pauses or retries", decision())),
        ("settings", top("locktender.yaml: settings of a release repository", settings())),
    ])
}

fn top(title: &str, mut schema: Value) -> Value {
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(title);
    schema
}

fn envelope(kind: &str, title: &str, spec: Value) -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let metadata = object(&["name"], [("name", text(NAME)), ("labels", texts.clone()), ("annotations", texts)]);
    let members = [
        ("apiVersion", json!({"const": API_VERSION})),
        ("kind", json!({"const": kind})),
        ("metadata", metadata),
        ("spec", spec),
    ];
    top(title, object(&["apiVersion", "kind", "metadata", "spec"], members))
}

fn object<const N: usize>(required: &[&str], members: [(&str, Value); N]) -> Value {
    let members: Map<String, Value> = members.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": members});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn described(description: &str, mut schema: Value) -> Value {
    schema["description"] = json!(description);
    schema
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn some_text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn integer(least: u32, most: u32) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

fn words(words: &[&str], default: &str) -> Value {
    json!({"enum": words, "default": default})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items, "uniqueItems": true})
}

fn int_or_percent(least: u32) -> Value {
    let percent = if least == 0 { PERCENT } else { PERCENT_FROM_ONE };
    json!({"anyOf": [integer(least, MOST_PODS), text(percent)]})
}

fn unit_replicas() -> Value {
    json!({"type": "object", "additionalProperties": int_or_percent(0)})
}

fn application() -> Value {
    let workload = object(&[], [("unitReplicas", described("Replaces the policy's.", unit_replicas()))]);
    let workloads = json!({"type": "object", "additionalProperties": workload});
    let source = object(&[], [("path", some_text()), ("kustomize", object(&[], []))]);
    object(
        &[],
        [
            ("namespace", described("For objects that name none.", text(NAME))),
            (
                "policy",
                described(
                    "A file in policies/; without one everything is applied in order, without stages.",
                    text(NAME),
                ),
            ),
            ("overrides", object(&[], [("workloads", workloads)])),
            ("source", described("Where the manifests are; the directory's own YAML where this is absent.", source)),
            ("drift", words(&["correct", "report"], "correct")),
            ("dependsOn", described("Applications that are complete before this one starts.", list(&text(NAME)))),
            (
                "serviceAccountName",
                described(
                    "A ServiceAccount in the application's namespace: its objects are read and written in its name.",
                    text(SUBDOMAIN),
                ),
            ),
        ],
    )
}

fn policy() -> Value {
    const DEADLINE: &str = "A stage that makes no progress for this long fails; waiting at a gate does not count.";
    let rollback = object(&[], [("stages", words(&["skip", "run"], "skip")), ("window", integer(0, 100))]);
    let prune = object(&[], [("confirmAbove", text(PERCENT))]);
    object(
        &["strategy"],
        [
            ("progressDeadlineSeconds", described(DEADLINE, integer(1, 604_800))),
            ("onFailure", words(&["abort", "stop"], "abort")),
            ("onAbort", words(&["revert", "hold"], "revert")),
            ("rollback", described("Going back to one of the last stables.", rollback)),
            ("onNewRevision", words(&["supersede", "queue"], "supersede")),
            ("drift", words(&["correct", "report"], "correct")),
            ("prune", described("A prune of more than this share of the objects waits for a confirm.", prune)),
            ("metrics", described("What stages can measure, by name.", metrics())),
            ("strategy", strategy()),
        ],
    )
}

fn strategy() -> Value {
    let mut strategy = object(&[], [("batched", batched()), ("canary", canary()), ("blueGreen", blue_green())]);
    strategy["minProperties"] = json!(1);
    strategy["maxProperties"] = json!(1);
    strategy
}

fn graceful() -> Value {
    let graceful = object(
        &[],
        [
            ("gracePeriodSeconds", integer(0, 86_400)),
            ("finalizers", list(&text(FINALIZER))),
            ("readinessGate", json!({"type": "boolean", "default": false})),
        ],
    );
    described("How a pod is taken out of service before it is touched.", graceful)
}

/// `20` or `20%`.
fn weight() -> Value {
    json!({"anyOf": [integer(1, 100), text(PERCENT_FROM_ONE)]})
}

fn canary() -> Value {
    let pause = object(&["duration"], [("duration", text(DURATION))]);
    let mut step = object(
        &[],
        [
            ("setWeight", described("The new version's share. Without a router: of the pods.", weight())),
            ("setCanaryReplicas", described("So many new pods; with a router also asWeight.", canary_replicas())),
            ("pause", described("The step lasts so long at least.", pause)),
            ("confirm", described("A person confirms before the next step.", object(&[], []))),
            (
                "analysis",
                described("These metrics are good before the next step, or from here on.", analysis_of_step()),
            ),
            ("setHeaderRoute", described("With a router: such requests go to the new version.", header_route())),
            ("setMirror", described("With a router: the share of requests that is copied to it.", share())),
            ("sessionAffinity", described("With a router: who was on the new version stays there.", affinity())),
        ],
    );
    step["minProperties"] = json!(1);
    step["maxProperties"] = json!(1);
    let steps = json!({"type": "array", "items": step, "minItems": 1, "maxItems": 100});
    let mut canary = object(
        &[],
        [
            ("steps", described("What happens, in order; shares only grow.", steps)),
            ("stepWeight", described("Instead of steps: each is so much more.", weight())),
            ("maxWeight", described("The last step before everything.", weight())),
            ("interval", described("How long each of these steps lasts.", text(DURATION))),
            ("metrics", described("What is measured at each of these steps.", names())),
            ("threshold", described("A metric that was bad so often at one step sends it back.", integer(1, 100))),
            ("confirmStart", described("A person confirms before the first pod.", yes_no())),
            ("confirmEachIncrease", described("A person confirms after each step but the last.", yes_no())),
            ("confirmPromotion", described("A person confirms before everything is new.", yes_no())),
            ("traffic", traffic()),
            (
                "scaleDownDelaySeconds",
                described("With a router: the old side stays so long without requests.", delay()),
            ),
            (
                "dynamicStableScale",
                described("With a router: the old side has only as many pods as its share needs.", yes_no()),
            ),
            ("maxSurge", described("Without a router: pods beside the wanted ones, rounded up.", int_or_percent(0))),
            ("maxUnavailable", described("Of each workload, rounded down.", int_or_percent(0))),
            ("minReadySeconds", integer(0, 86_400)),
            ("graceful", graceful()),
        ],
    );
    canary["anyOf"] = json!([{"required": ["steps"]}, {"required": ["stepWeight"]}]);
    canary
}

/// `0` to `100`, `30%`.
fn share() -> Value {
    json!({"anyOf": [integer(0, 100), text(PERCENT)]})
}

fn delay() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": 86_400, "default": 30})
}

fn canary_replicas() -> Value {
    json!({"anyOf": [int_or_percent(1), {"const": "asWeight"}]})
}

/// One of several members.
fn one_of(mut schema: Value) -> Value {
    schema["minProperties"] = json!(1);
    schema["maxProperties"] = json!(1);
    schema
}

fn header_route() -> Value {
    let value = || {
        one_of(object(
            &[],
            [
                ("exact", some_text()),
                ("prefix", some_text()),
                ("regex", described("In the router's own dialect.", some_text())),
            ],
        ))
    };
    let name = || text("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
    let condition = object(
        &[],
        [("headerName", name()), ("headerValue", value()), ("cookieName", name()), ("cookieValue", value())],
    );
    object(&["match"], [("match", json!({"type": "array", "items": condition, "minItems": 1}))])
}

fn affinity() -> Value {
    object(&[], [("cookie", text(NAME)), ("maxAge", described("Absent is until it is closed.", text(DURATION)))])
}

fn traffic() -> Value {
    let istio = object(
        &["virtualService"],
        [
            ("virtualService", text(SUBDOMAIN)),
            ("destinationRule", described("The Service's: the new side's gets the same.", text(SUBDOMAIN))),
        ],
    );
    let haproxy = object(
        &["backend", "runtime"],
        [
            ("backend", described("Its servers are the pods.", text("^[A-Za-z0-9_.:-]+$"))),
            ("runtime", described("Its Runtime API.", text("^(unix:/.+|[^/ ]+:[0-9]+)$"))),
        ],
    );
    let routers = one_of(object(
        &[],
        [
            ("gatewayApi", object(&["httpRoute"], [("httpRoute", text(SUBDOMAIN))])),
            ("istio", istio),
            ("nginx", object(&["ingress"], [("ingress", text(SUBDOMAIN))])),
            ("haproxy", haproxy),
        ],
    ));
    described("What shares requests out between the versions.", routers)
}

fn blue_green() -> Value {
    let watch = object(
        &["duration"],
        [
            ("duration", text(DURATION)),
            ("metrics", described("These are good meanwhile, or requests are switched back.", names())),
        ],
    );
    object(
        &[],
        [
            ("previewService", described("Sends to the new side only, until it is stable.", text(NAME))),
            ("previewReplicas", described("So many new pods until the switch is confirmed.", int_or_percent(1))),
            ("healthCheck", described("Every new pod answers it before it gets requests.", health_check())),
            ("confirm", words(&["beforeSwitch", "none"], "beforeSwitch")),
            ("confirmStart", described("A person confirms before the first pod.", yes_no())),
            ("analysis", described("These metrics are good before the switch.", analysis())),
            ("watch", described("The old side stays so long at least after the switch.", watch)),
            ("traffic", traffic()),
            ("scaleDownDelaySeconds", described("The old side stays so long without requests.", delay())),
            ("minReadySeconds", integer(0, 86_400)),
            ("maxUnavailable", described("Of each workload, rounded down.", int_or_percent(0))),
            ("graceful", graceful()),
        ],
    )
}

fn health_check() -> Value {
    let port = json!({"anyOf": [integer(1, 65_535), text(NAME)]});
    let expect = json!({"type": "object", "minProperties": 1});
    object(
        &["path", "port"],
        [
            ("path", text("^/[^\\s#]*$")),
            ("port", described("The number of a pod's port, or its name.", port)),
            ("expect", described("What the answer, which is JSON then, says at least.", expect)),
            ("timeoutSeconds", json!({"type": "integer", "minimum": 1, "maximum": LONGEST, "default": 5})),
        ],
    )
}

fn yes_no() -> Value {
    json!({"type": "boolean", "default": false})
}

fn names() -> Value {
    json!({"type": "array", "items": text(NAME), "minItems": 1, "uniqueItems": true})
}

fn analysis_of_step() -> Value {
    object(&["metrics"], [("metrics", names()), ("background", yes_no())])
}

fn analysis() -> Value {
    object(&["metrics"], [("metrics", names())])
}

fn metrics() -> Value {
    let range = object(&["window", "step"], [("window", text(DURATION)), ("step", text(DURATION))]);
    let prometheus = object(
        &["query"],
        [
            ("address", described("Absent is the one of locktender.yaml.", text(SERVER))),
            ("query", described("PromQL, with arguments such as {{ namespace }} and {{ pods }}.", some_text())),
            ("range", described("The points of a time until now, instead of one value.", range)),
        ],
    );
    let web = object(
        &["url"],
        [("url", text("^https?://.")), ("jsonPath", described("Where the measurement is: $.data.rate", some_text()))],
    );
    let template = json!({"type": "object", "required": ["spec"]});
    let spec = json!({"type": "object", "required": ["template"], "properties": {"template": template}});
    let job = object(&["spec"], [("spec", described("As of a batch/v1 Job, with arguments in its texts.", spec))]);
    let limit = |what: &str| described(what, integer(0, 200));
    let metric = object(
        &[],
        [
            (
                "of",
                described("Whose numbers a ready metric reads.", words(&["pods", "istio", "nginx", "haproxy"], "pods")),
            ),
            ("prometheus", prometheus),
            ("web", web),
            ("job", described("A Job that is run once a sample: good where it completes.", job)),
            ("successCondition", described("CEL: a sample is good where it holds.", some_text())),
            ("failureCondition", described("CEL: a sample is bad where it holds.", some_text())),
            ("initialDelay", described("From the stage's last pod to the first sample.", text(DURATION))),
            ("interval", described("Between two samples.", text(DURATION))),
            ("count", described("It is good after so many samples.", integer(1, 200))),
            ("consecutiveSuccessLimit", described("It is good after so many good ones in a row.", integer(1, 200))),
            ("failureLimit", limit("It is bad when more samples are bad.")),
            ("inconclusiveLimit", limit("It stops when more samples tell nothing.")),
            ("errorLimit", limit("It stops when more samples in a row cannot be taken.")),
            ("noData", words(&["inconclusive", "pass", "fail"], "inconclusive")),
        ],
    );
    json!({"type": "object", "additionalProperties": metric})
}

fn batched() -> Value {
    let beta = object(&[], [("perUnit", described("Pods of every unit; 0 is no beta group.", integer(0, MOST_PODS)))]);
    object(
        &[],
        [
            ("update", words(&["InPlaceIfPossible", "InPlaceOnly", "Recreate"], "InPlaceIfPossible")),
            ("topology", topology()),
            ("beta", described("The first batch.", beta)),
            ("batchSize", described("Pods of one batch, over all units together.", int_or_percent(1))),
            ("confirm", words(&["everyBatch", "beta", "none"], "everyBatch")),
            ("minReadySeconds", integer(0, 86_400)),
            ("maxUnavailable", described("Of each workload, rounded down, at least one.", int_or_percent(1))),
            ("graceful", graceful()),
        ],
    )
}

fn topology() -> Value {
    let mut units = list(&text(LABEL_VALUE));
    units["minItems"] = json!(1);
    units["maxItems"] = json!(100);
    let reschedule = object(&[], [("enable", json!({"type": "boolean"})), ("initialDelaySeconds", integer(1, 86_400))]);
    object(
        &["units"],
        [
            ("unitType", described("A node label; its value is the unit.", text(QUALIFIED))),
            ("units", units),
            (
                "unitReplicas",
                described("Fixed counts first, then percentages; the rest is spread evenly.", unit_replicas()),
            ),
            ("autoReschedule", described("Moves pods that find no place to another unit.", reschedule)),
        ],
    )
}

fn freeze() -> Value {
    object(
        &[],
        [
            ("from", text(TIME)),
            ("until", text(TIME)),
            ("applications", described("All where absent.", json!({"type": "array", "items": text(NAME)}))),
            ("reason", some_text()),
        ],
    )
}

/// An empty file is a decision, too: to a schema that is null.
fn decision() -> Value {
    let mut schema = object(
        &[],
        [
            ("planHash", described("The hash of the plan that was seen.", text(DIGEST))),
            ("record", described("The id of the waiting record that was seen.", text(DIGEST))),
            ("message", some_text()),
        ],
    );
    schema["type"] = json!(["object", "null"]);
    schema
}

fn settings() -> Value {
    object(
        &[],
        [
            ("paths", object(&[], [("apps", some_text()), ("policies", some_text()), ("freezes", some_text())])),
            ("branch", described("The watched branch.", some_text())),
            ("ledger", object(&[], [("pushInterval", text(DURATION))])),
            (
                "rollouts",
                object(
                    &[],
                    [(
                        "concurrent",
                        described(
                            "How many rollouts may be under way at once, over all applications.",
                            integer(1, MOST_CONCURRENT),
                        ),
                    )],
                ),
            ),
            ("identity", object(&[], [("name", some_text()), ("email", some_text())])),
            (
                "metrics",
                described(
                    "Whom metrics ask that name nobody.",
                    object(&[], [("prometheus", object(&["url"], [("url", text(SERVER))]))]),
                ),
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{
        application, decision, health_check, read_analysis, read_blue_green, read_canary, read_policy, read_traffic,
        settings,
    };

    /// Fields that are read only to say that they come later.
    const LATER: &[&str] = &["cluster", "helm", "approvers", "clusters"];

    #[test]
    fn the_schema_knows_the_fields_that_are_read() {
        let schemas = all();
        let batched = "/properties/spec/properties/strategy/properties/batched";
        let canary = "/properties/spec/properties/strategy/properties/canary";
        let blue_green = "/properties/spec/properties/strategy/properties/blueGreen";
        let step = format!("{canary}/properties/steps/items/properties");
        let condition = format!("{step}/setHeaderRoute/properties/match/items");
        let metric = "/properties/spec/properties/metrics/additionalProperties";
        let table = [
            ("application", "/properties/spec".to_owned(), application::SPEC),
            ("rolloutpolicy", "/properties/spec".to_owned(), read_policy::SPEC),
            ("rolloutpolicy", batched.to_owned(), read_policy::BATCHED),
            ("rolloutpolicy", format!("{batched}/properties/topology"), read_policy::TOPOLOGY),
            ("rolloutpolicy", format!("{batched}/properties/graceful"), read_policy::GRACEFUL),
            ("rolloutpolicy", metric.to_owned(), read_analysis::METRIC),
            ("rolloutpolicy", canary.to_owned(), read_canary::CANARY),
            ("rolloutpolicy", format!("{canary}/properties/steps/items"), read_canary::STEP),
            ("rolloutpolicy", blue_green.to_owned(), read_blue_green::BLUE_GREEN),
            ("rolloutpolicy", format!("{blue_green}/properties/watch"), read_blue_green::WATCH),
            ("rolloutpolicy", format!("{canary}/properties/traffic"), read_traffic::TRAFFIC),
            ("rolloutpolicy", condition, read_traffic::MATCH),
            ("rolloutpolicy", format!("{blue_green}/properties/healthCheck"), health_check::HEALTH_CHECK),
            ("freeze", "/properties/spec".to_owned(), settings::FREEZE),
            ("decision", String::new(), decision::FIELDS),
            ("settings", String::new(), settings::SETTINGS),
            ("settings", "/properties/rollouts".to_owned(), settings::ROLLOUTS),
        ];
        for (name, path, read) in table {
            let properties = schemas[name].pointer(&format!("{path}/properties")).and_then(Value::as_object);
            let mut known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
            let strategy = path.rsplit('/').next().unwrap_or_default();
            let later = |field: &str| LATER.contains(&field) || LATER.contains(&&*format!("{strategy}.{field}"));
            let mut read: Vec<&str> = read.iter().copied().filter(|field| !later(field)).collect();
            known.sort_unstable();
            read.sort_unstable();
            assert_eq!(known, read, "{name}{path}");
        }
    }
}
