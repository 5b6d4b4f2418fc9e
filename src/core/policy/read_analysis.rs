//! Reads metrics, and the steps that name them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    HumanDuration,
    read::{Fields, Reader, dns_label, nearest},
};
use crate::core::{
    analysis::{
        Argument, Condition, Enough, Exposed, JsonPath, Metric, NoData, Provider, READY, Range, Rule, Template, ready,
    },
    traffic::Router,
    yaml::{Node, Span},
};

/// The fields of a metric.
pub(super) const METRIC: &[&str] = &[
    "of",
    "prometheus",
    "web",
    "job",
    "successCondition",
    "failureCondition",
    "initialDelay",
    "interval",
    "count",
    "consecutiveSuccessLimit",
    "failureLimit",
    "inconclusiveLimit",
    "errorLimit",
    "noData",
];
const PROMETHEUS: &[&str] = &["address", "query", "range"];
const WEB: &[&str] = &["url", "jsonPath"];
const NO_DATA: &[(&str, NoData)] =
    &[("inconclusive", NoData::Inconclusive), ("pass", NoData::Pass), ("fail", NoData::Fail)];
/// The most that a limit or a count of samples can be: all of them go into one record, and are fewer than an analysis has.
const MOST: u32 = 200;
/// The most points of one range.
const MOST_POINTS: u64 = 200;

/// The metrics of a policy: those that it defines, and the ready ones that its steps name.
#[derive(Default)]
pub(super) struct Metrics {
    metrics: BTreeMap<String, Metric>,
    /// Those that are defined, and wrong: told already.
    wrong: Vec<String>,
    /// Where they are defined.
    spans: BTreeMap<String, Span>,
}

impl Metrics {
    /// Reads a policy's `metrics`.
    pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> Self {
        let mut all = Self::default();
        for entry in node.and_then(|node| reader.map(node)).unwrap_or_default() {
            if let Err(message) = dns_label(&entry.key) {
                reader.problem(entry.key_span, message);
                continue;
            }
            match metric(reader, &entry.key, &entry.value) {
                Some(metric) => {
                    all.spans.insert(entry.key.clone(), entry.key_span);
                    all.metrics.insert(entry.key.clone(), metric);
                }
                None => all.wrong.push(entry.key.clone()),
            }
        }
        all
    }

    /// Reads `{metrics: [success-rate]}` of a step.
    pub(super) fn step(&mut self, reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
        let Some(fields) = reader.fields(node, &["metrics"]) else { return Vec::new() };
        let node = reader.required(&fields, "metrics");
        node.map(|node| self.named(reader, node)).unwrap_or_default()
    }

    /// Reads `{metrics: [success-rate], background: true}` of one step of many, and whether it is in the background.
    pub(super) fn step_of_many(&mut self, reader: &mut Reader<'_>, node: &Node) -> (Vec<String>, bool) {
        let Some(fields) = reader.fields(node, &["metrics", "background"]) else { return (Vec::new(), false) };
        let named = reader.required(&fields, "metrics");
        let names = named.map(|node| self.named(reader, node)).unwrap_or_default();
        let background = fields.get("background").and_then(|node| reader.boolean(node)).unwrap_or(false);
        let is_job = |name: &&String| self.metrics.get(*name).is_some_and(Metric::is_job);
        if let Some(job) = names.iter().find(is_job).filter(|_| background) {
            let problem = reader.problem(node.span, format!("`{job}` is a Job, and would run for ever"));
            problem.label = Some("write it without `background`".to_owned());
        }
        (names, background)
    }

    /// Reads a list of metrics' names; one that is not defined is a ready one.
    pub(super) fn named(&mut self, reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
        let items = reader.list(node).unwrap_or_default();
        if items.is_empty() {
            reader.problem(node.span, "no metric is named").label = Some(format!("one of {}", READY.join(", ")));
        }
        let mut names: Vec<String> = Vec::new();
        for item in items {
            let Some(name) = reader.text(item) else { continue };
            if names.iter().any(|known| known == name) {
                reader.problem(item.span, format!("`{name}` is here twice"));
            } else if self.add_ready(name) {
                names.push(name.to_owned());
            } else {
                let known: Vec<&str> = self.metrics.keys().map(String::as_str).chain(READY.iter().copied()).collect();
                let label = match nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write it under `metrics` of the policy's `spec`".to_owned(),
                };
                reader.problem(item.span, format!("there is no metric `{name}`")).label = Some(label);
            }
        }
        names
    }

    /// Returns whether there is a metric of that name; a ready one is taken in.
    pub(super) fn add_ready(&mut self, name: &str) -> bool {
        if self.metrics.contains_key(name) || self.wrong.iter().any(|wrong| wrong == name) {
            return true;
        }
        let metric = ready(name, Exposed::Pods);
        metric.map(|metric| self.metrics.insert(name.to_owned(), metric)).is_some()
    }

    /// Lets a metric be asked until it is good once, and fail when it was bad for the `threshold`th time.
    pub(super) fn until_good(&mut self, name: &str, interval: Duration, threshold: u32) {
        if let Some(metric) = self.metrics.get_mut(name) {
            metric.rule.enough = Enough::InARow(1);
            metric.rule.failure_limit = threshold.saturating_sub(1);
            metric.rule.initial_delay = interval;
            metric.rule.interval = interval;
        }
    }

    /// Refuses what is measured by a router that the strategy does not name.
    pub(super) fn check_router(&self, reader: &mut Reader<'_>, router: Option<&Router>) {
        for (name, span) in &self.spans {
            let arguments = self.metrics.get(name).map(Metric::arguments).unwrap_or_default();
            let needed = arguments.into_iter().find_map(|argument| argument.router().filter(|_| !argument.has(router)));
            if let Some(needed) = needed {
                let message =
                    format!("`{name}` is measured by the `{needed}` of the strategy's `traffic`, which names none");
                reader.problem(*span, message).label = Some(format!("write `traffic: {{{needed}: {{…}}}}` there"));
            }
        }
    }

    /// Returns all of them.
    pub(super) fn into_all(self) -> BTreeMap<String, Metric> {
        self.metrics
    }
}

fn metric(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Metric> {
    let fields = reader.fields(node, METRIC)?;
    let given: Vec<&str> =
        ["of", "prometheus", "web", "job"].into_iter().filter(|name| fields.get(name).is_some()).collect();
    if given.len() > 1 {
        reader.problem(fields.span, format!("a metric is asked in one way, not by {}", given.join(" and ")));
        return None;
    }
    let is_ready = READY.contains(&name) && !given.iter().any(|one| *one != "of");
    let base = if is_ready { of(reader, name, fields.get("of"))? } else { own(reader, &fields)? };
    let rule = rule(reader, &fields, base.rule);
    let metric = Metric { name: name.to_owned(), rule, ..base };
    check(reader, &fields, &metric);
    Some(metric)
}

/// Takes a ready metric, of the source that is named.
fn of(reader: &mut Reader<'_>, name: &str, node: Option<&Node>) -> Option<Metric> {
    let exposed = match node {
        Some(node) => reader.choice(node, Exposed::ALL)?,
        None => Exposed::Pods,
    };
    let metric = ready(name, exposed);
    if let (None, Some(node)) = (&metric, node) {
        reader.problem(node.span, format!("there is no ready metric `{name}` of that"));
    }
    metric
}

fn own(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Metric> {
    let mut success_condition = None;
    let provider = match (fields.get("prometheus"), fields.get("web"), fields.get("job")) {
        (Some(node), ..) => prometheus(reader, node)?,
        (None, Some(node), _) => web(reader, node)?,
        (None, None, Some(node)) => {
            success_condition = Condition::parse("result.complete").ok();
            job(reader, node)?
        }
        (None, None, None) => {
            let label = match fields.get("of") {
                Some(_) => format!("`of` is for the ready metrics {}", READY.join(", ")),
                None => "write `prometheus: {query: …}`, `web: {url: …}` or `job: {spec: …}`".to_owned(),
            };
            reader.problem(fields.span, "nobody says what is measured").label = Some(label);
            return None;
        }
    };
    let rule = Rule {
        success_condition,
        failure_condition: None,
        initial_delay: Duration::ZERO,
        interval: Duration::from_secs(20),
        enough: Enough::Count(1),
        failure_limit: 0,
        inconclusive_limit: 0,
        error_limit: 4,
        no_data: NoData::Inconclusive,
    };
    Some(Metric { name: String::new(), provider, rule })
}

fn prometheus(reader: &mut Reader<'_>, node: &Node) -> Option<Provider> {
    let fields = reader.fields(node, PROMETHEUS)?;
    let address = fields.get("address").and_then(|node| reader.checked(node, server)).map(str::to_owned);
    let query = reader.required(&fields, "query")?;
    let query = template(reader, query)?;
    let range = fields.get("range").and_then(|node| range(reader, node));
    Some(Provider::Prometheus { address, query, range })
}

fn range(reader: &mut Reader<'_>, node: &Node) -> Option<Range> {
    let fields = reader.fields(node, &["window", "step"])?;
    let (window, step) = (reader.required(&fields, "window")?, reader.required(&fields, "step")?);
    let range = Range { window: whole(reader, window)?, step: whole(reader, step)? };
    if range.window.as_secs() / range.step.as_secs().max(1) > MOST_POINTS {
        reader.problem(step.span, format!("that is more than {MOST_POINTS} points"));
    }
    Some(range)
}

fn web(reader: &mut Reader<'_>, node: &Node) -> Option<Provider> {
    let fields = reader.fields(node, WEB)?;
    let url = reader.required(&fields, "url")?;
    reader.checked(url, address)?;
    let url = template(reader, url)?;
    let json_path = match fields.get("jsonPath") {
        Some(node) => parsed(reader, node, JsonPath::parse)?,
        None => JsonPath::parse("$").ok()?,
    };
    Some(Provider::Web { url, json_path })
}

fn job(reader: &mut Reader<'_>, node: &Node) -> Option<Provider> {
    let fields = reader.fields(node, &["spec"])?;
    let spec = reader.required(&fields, "spec")?;
    let pod = spec.get("template").and_then(|template| template.get("spec"));
    let Some(pod) = pod.filter(|pod| pod.get("containers").is_some_and(|list| !list.items().is_empty())) else {
        let problem = reader.problem(spec.span, "a Job needs a pod with a container");
        problem.label = Some("write `template: {spec: {restartPolicy: Never, containers: […]}}`".to_owned());
        return None;
    };
    let restarts = pod.get("restartPolicy");
    if !matches!(restarts.and_then(Node::text), Some("Never" | "OnFailure")) {
        let span = restarts.map_or(pod.span, |node| node.span);
        reader.problem(span, "the pods of a Job are not started again whatever happens").label =
            Some("write `restartPolicy: Never` or `restartPolicy: OnFailure`".to_owned());
        return None;
    }
    arguments(reader, spec).then(|| Provider::Job { spec: spec.to_value() })
}

/// Checks the arguments in every text below a node.
fn arguments(reader: &mut Reader<'_>, node: &Node) -> bool {
    let fields = node.entries().iter().map(|entry| &entry.value);
    // Each is told of, not only the first.
    let wrong = fields.chain(node.items()).filter(|node| !arguments(reader, node)).count();
    let is_good = !node.text().is_some_and(|text| text.contains("{{")) || template(reader, node).is_some();
    wrong == 0 && is_good
}

/// Reads the conditions, limits and times, over those of `base`.
fn rule(reader: &mut Reader<'_>, fields: &Fields<'_>, base: Rule) -> Rule {
    let condition =
        |reader: &mut Reader<'_>, name: &str| fields.get(name).and_then(|node| parsed(reader, node, Condition::parse));
    let (success, failure) = (condition(reader, "successCondition"), condition(reader, "failureCondition"));
    let own = success.is_some() || failure.is_some();
    let time = |reader: &mut Reader<'_>, name: &str, default: Duration| {
        fields.get(name).and_then(|node| whole(reader, node)).unwrap_or(default)
    };
    let number = |reader: &mut Reader<'_>, name: &str, least: u32| {
        fields.get(name).and_then(|node| reader.integer(node, least..=MOST))
    };
    let (count, in_a_row) = (number(reader, "count", 1), number(reader, "consecutiveSuccessLimit", 1));
    if let (Some(_), Some(_), Some(node)) = (count, in_a_row, fields.get("consecutiveSuccessLimit")) {
        let problem = reader.problem(node.span, "`count` and `consecutiveSuccessLimit` both say when it is enough");
        problem.label = Some("write one of them".to_owned());
    }
    let no_data = fields.get("noData").and_then(|node| reader.choice(node, NO_DATA));
    Rule {
        success_condition: if own { success } else { base.success_condition },
        failure_condition: if own { failure } else { base.failure_condition },
        initial_delay: time(reader, "initialDelay", base.initial_delay),
        interval: time(reader, "interval", base.interval),
        enough: in_a_row.map(Enough::InARow).or(count.map(Enough::Count)).unwrap_or(base.enough),
        failure_limit: number(reader, "failureLimit", 0).unwrap_or(base.failure_limit),
        inconclusive_limit: number(reader, "inconclusiveLimit", 0).unwrap_or(base.inconclusive_limit),
        error_limit: number(reader, "errorLimit", 0).unwrap_or(base.error_limit),
        no_data: no_data.unwrap_or(base.no_data),
    }
}

/// Finds what only several fields show.
fn check(reader: &mut Reader<'_>, fields: &Fields<'_>, metric: &Metric) {
    let rule = &metric.rule;
    let span_of = |name: &str| fields.get(name).map_or(fields.span, |node| node.span);
    if rule.success_condition.is_none() && rule.failure_condition.is_none() {
        let written = ["successCondition", "failureCondition"].iter().any(|name| fields.get(name).is_some());
        if !written {
            reader.problem(fields.span, "nobody says what is good").label =
                Some("write `successCondition: result[0] >= 0.99`".to_owned());
        }
        return;
    }
    if let Enough::Count(count) = rule.enough
        && rule.failure_limit >= count
    {
        let message = format!("it could never fail: there are {count} samples, and {} may fail", rule.failure_limit);
        reader.problem(span_of("failureLimit"), message);
    }
    let apart = match &metric.provider {
        Provider::Prometheus { query, .. } => query.tells_sides_apart(),
        Provider::Web { url, .. } => url.tells_sides_apart(),
        // It measures the new version alone.
        Provider::Job { .. } => false,
    };
    if metric.compares() && !apart {
        let (message, label) = match metric.is_job() {
            true => ("a Job has no `baseline`", "it measures the new version alone: compare inside of it"),
            false => (
                "`baseline` would be the same as `value`: the query asks for both at once",
                "name `{{ pods }}`, `{{ digest }}` or `{{ variant }}` in it",
            ),
        };
        reader.problem(fields.span, message).label = Some(label.to_owned());
    }
    if let Provider::Prometheus { range, .. } = &metric.provider {
        let points = range.map_or(1, |range| range.window.as_secs() / range.step.as_secs().max(1) + 1);
        let result = serde_json::json!((0..points).map(|_| 0.5).collect::<Vec<f64>>());
        let conditions = [("successCondition", &rule.success_condition), ("failureCondition", &rule.failure_condition)];
        for (name, condition) in conditions {
            let Some(Err(why)) = condition.as_ref().map(|condition| condition.holds(&result, Some(&result))) else {
                continue;
            };
            // With several points there is no one value to compare.
            let why = if points > 1 { format!("of {points} points, {why}") } else { why };
            reader.problem(span_of(name), why);
        }
    }
}

fn parsed<T>(reader: &mut Reader<'_>, node: &Node, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
    let text = reader.text(node)?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(message) => {
            reader.problem(node.span, message);
            None
        }
    }
}

fn template(reader: &mut Reader<'_>, node: &Node) -> Option<Template> {
    let text = reader.text(node)?;
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(name) => {
            let known = || Argument::ALL.iter().map(|(name, _)| *name);
            let label = match nearest(&name, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
            };
            reader.problem(node.span, format!("there is no argument `{{{{ {name} }}}}`")).label = Some(label);
            None
        }
    }
}

/// Takes a duration of whole seconds.
pub(super) fn whole(reader: &mut Reader<'_>, node: &Node) -> Option<Duration> {
    let duration = reader.duration(node)?;
    if duration.subsec_nanos() != 0 {
        reader.problem(node.span, format!("{} is not whole seconds", HumanDuration::of(duration)?));
        return None;
    }
    Some(duration)
}

/// Checks an address without credentials: it goes into plans and records, which everybody reads.
fn address(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return Err(format!("`{text}` does not begin with `http://` or `https://`")) };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("an address has no user and no password: it is read by everybody".to_owned());
    }
    if host.is_empty() || text.chars().any(|character| character.is_control()) {
        return Err(format!("`{}` is no address", text.escape_debug()));
    }
    Ok(())
}

/// Checks a server's address, to which paths are added.
pub(super) fn server(text: &str) -> Result<(), String> {
    address(text)?;
    if text.contains(['?', '#', ' ', '{']) { Err(format!("`{text}` is no server's address")) } else { Ok(()) }
}
