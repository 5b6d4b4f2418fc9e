//! The subresources that act on an object without being a part of it: `scale` and `eviction`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Api, Cause, DeleteOptions, Labels, PatchRequest, Request, Response, Status,
    handle::Target,
    resources::{Resource, ScalePaths},
    time,
    write::{WriteOptions, patch_value},
};

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let metadata = &object["metadata"];
    let mut made = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": at(object, &paths.status).cloned().unwrap_or_else(|| 0.into())},
    });
    if let Some(namespace) = metadata["namespace"].as_str() {
        made["metadata"]["namespace"] = namespace.into();
    }
    // Go leaves a wanted 0 out.
    if let Some(replicas) = at(object, &paths.spec).filter(|replicas| replicas.as_i64() != Some(0)) {
        made["spec"]["replicas"] = replicas.clone();
    }
    let selector = paths.selector.as_ref().and_then(|path| at(object, path));
    let text = match selector {
        Some(Value::String(text)) => Some(text.clone()),
        Some(selector) => Labels::of(selector).map(|labels| labels.to_string()),
        None => None,
    };
    if let Some(text) = text {
        made["status"]["selector"] = text.into();
    }
    made
}

impl Api {
    pub(super) fn answer_scale(&mut self, request: &Request, target: &Target, name: &str) -> Result<Response, Status> {
        let resource = &target.resource;
        let paths = resource.scale_paths().ok_or_else(Status::no_path)?;
        let live = self.store.get(&resource.key, &target.namespace, name).cloned();
        let live = live.ok_or_else(|| resource.about(name).not_found())?;
        if request.method == "GET" {
            return Ok(Response::json(200, scale_of(&live, &paths)));
        }
        let wanted = request.json_body()?;
        let made = self.set_scale(resource, &live, &wanted, &paths, &request.options()?)?;
        Ok(Response::json(200, Value::clone(&made)))
    }

    pub(super) fn patch_scale(
        &mut self,
        resource: &Arc<Resource>,
        request: &PatchRequest,
    ) -> Result<Arc<Value>, Status> {
        let paths = resource.scale_paths().ok_or_else(Status::no_path)?;
        let live = self.store.get(&resource.key, &request.namespace, &request.name).cloned();
        let live = live.ok_or_else(|| resource.about(&request.name).not_found())?;
        let mut scale = scale_of(&live, &paths);
        match request.kind {
            // A scale has no lists: for it, applying and merging are one.
            super::PatchKind::Apply | super::PatchKind::Strategic => {
                super::patch::merge::apply(&mut scale, &request.body);
            }
            _ => patch_value(&mut scale, request, resource)?,
        }
        self.set_scale(resource, &live, &scale, &paths, &request.options)
    }

    /// Writes what a scale says into the object, and returns the scale as it is then.
    fn set_scale(
        &mut self,
        resource: &Arc<Resource>,
        live: &Arc<Value>,
        scale: &Value,
        paths: &ScalePaths,
        options: &WriteOptions,
    ) -> Result<Arc<Value>, Status> {
        let name = super::write::name(live);
        let replicas = match &scale["spec"]["replicas"] {
            Value::Null => 0,
            given => given.as_i64().ok_or_else(|| {
                Status::bad_request(format!(
                    "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {given} into Go \
                     struct field ScaleSpec.spec.replicas of type int32"
                ))
            })?,
        };
        if replicas < 0 {
            let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
            let cause = Cause { reason: "FieldValueInvalid", message, field: "spec.replicas".into() };
            let about = super::status::About { group: "autoscaling", plural: "scales", kind: "Scale", name };
            return Err(about.invalid(vec![cause]));
        }
        let mut object = Value::clone(live);
        let place = paths.spec.iter().fold(&mut object, |value, name| &mut value[name]);
        *place = replicas.into();
        for field in ["resourceVersion", "uid"] {
            if let Some(given) = scale["metadata"][field].as_str().filter(|given| !given.is_empty()) {
                object["metadata"][field] = given.into();
            }
        }
        let made = self.update_in(resource, object, "scale", options, false)?;
        Ok(Arc::new(scale_of(&made, paths)))
    }

    /// Evicts a pod: deletes it where its budget allows.
    ///
    /// # Errors
    ///
    /// 429 where the budget does not allow it, 500 where two budgets select the pod.
    pub fn evict(&mut self, namespace: &str, name: &str, eviction: &Value, dry_run: bool) -> Result<(), Status> {
        let pods = super::status::About { group: "", plural: "pods", kind: "Pod", name };
        let pod = self.store.get("pods", namespace, name).cloned().ok_or_else(|| pods.not_found())?;
        let given = &eviction["deleteOptions"];
        let options = DeleteOptions {
            grace_period_seconds: given["gracePeriodSeconds"].as_i64(),
            uid: given["preconditions"]["uid"].as_str().map(str::to_owned),
            resource_version: given["preconditions"]["resourceVersion"].as_str().map(str::to_owned),
            dry_run: dry_run || given["dryRun"].is_array(),
            ..DeleteOptions::default()
        };
        let harmless = matches!(pod["status"]["phase"].as_str(), Some("Pending" | "Succeeded" | "Failed"))
            || pod["metadata"].get("deletionTimestamp").is_some();
        if !harmless {
            self.spend_budget(&pod, options.dry_run)?;
        }
        self.delete("pods", namespace, name, options).map(drop)
    }

    fn spend_budget(&mut self, pod: &Value, dry_run: bool) -> Result<(), Status> {
        let namespace = super::write::space(pod);
        let selects =
            |budget: &&Arc<Value>| Labels::of(&budget["spec"]["selector"]).is_some_and(|labels| labels.matches(pod));
        let budgets: Vec<Arc<Value>> =
            self.store.list_in("poddisruptionbudgets.policy", namespace).filter(selects).cloned().collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                return Err(Status::new(
                    500,
                    "InternalError",
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let status = &budget["status"];
        let number = |name: &str| status[name].as_i64().unwrap_or(0);
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready =
            conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        if !ready && number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0 {
            return Ok(());
        }
        let refused = |why: String, retry_after: Option<u32>| {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let cause = Cause { reason: "DisruptionBudget", message: why, field: String::new() };
            let mut status = Status::new(429, "TooManyRequests", message);
            status.details.causes.push(cause);
            status.details.retry_after = retry_after;
            status
        };
        let name = super::write::name(budget);
        if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
            let why = format!("The disruption budget {name} is still being processed by the server.");
            return Err(refused(why, Some(10)));
        }
        if number("disruptionsAllowed") <= 0 {
            let (needs, has) = (number("desiredHealthy"), number("currentHealthy"));
            let why = format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently");
            return Err(refused(why, None));
        }
        if dry_run {
            return Ok(());
        }
        let mut spent = Value::clone(budget);
        spent["status"]["disruptionsAllowed"] = (number("disruptionsAllowed") - 1).into();
        spent["status"]["disruptedPods"][super::write::name(pod)] = time::seconds(self.now).into();
        self.update(spent, Some("status")).map(drop)
    }
}
