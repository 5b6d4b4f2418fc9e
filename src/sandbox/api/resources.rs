//! The table of what the API server serves: Kubernetes' own kinds, and those of custom resource definitions.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::sandbox::schema::{self, Shape};

/// One kind in one version, as it is served.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Where its objects are stored, `pods` or `deployments.apps`: the same for all versions of a kind.
    pub key: Arc<str>,
    /// `apps`; "" for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `apps/v1`, or `v1` for the core group.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// `deployments`.
    pub plural: String,
    /// `deployment`.
    pub singular: String,
    /// `deploy`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What an object looks like.
    pub shape: Shape,
    /// `status`, `scale`, …
    pub subresources: Vec<String>,
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// What a custom resource definition says further.
    pub custom: Option<Custom>,
}

/// What a custom resource definition says of one of its versions.
#[derive(Clone, Debug)]
pub struct Custom {
    /// `additionalPrinterColumns`.
    pub columns: Value,
    /// `subresources.scale`.
    pub scale: Option<ScalePaths>,
    /// Whether this version is the one that is stored.
    pub stored: bool,
}

/// Where a scale is found in an object, as paths of field names.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// `spec.replicas`.
    pub spec: Vec<String>,
    /// `status.replicas`.
    pub status: Vec<String>,
    /// Where the selector is.
    pub selector: Option<Vec<String>>,
}

impl Resource {
    /// Returns `apps/v1, Resource=deployments`.
    pub fn group_version_resource(&self) -> String {
        format!("{}, Resource={}", self.api_version, self.plural)
    }

    /// Returns whether there is a subresource of this name.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }

    /// Returns where a scale is found.
    pub fn scale_paths(&self) -> Option<ScalePaths> {
        if !self.has("scale") {
            return None;
        }
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        match &self.custom {
            Some(custom) => custom.scale.clone(),
            None => Some(ScalePaths {
                spec: path("spec.replicas"),
                status: path("status.replicas"),
                selector: Some(path("spec.selector")),
            }),
        }
    }

    /// Returns what to say of one of its objects.
    pub fn about<'a>(&'a self, name: &'a str) -> super::status::About<'a> {
        super::status::About { group: &self.group, plural: &self.plural, kind: &self.kind, name }
    }

    /// Returns the verbs that discovery lists.
    pub fn verbs(&self) -> &'static [&'static str] {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    }
}

/// One line a kind: group/version, kind, plural, short names, flags (`n` namespaced, `s` status, `c` scale, `a` in
/// `kubectl get all`, `g` counts generations), further subresources.
const TABLE: &str = "
v1 Namespace namespaces ns s finalize
v1 Node nodes no s
v1 Pod pods po nsag eviction,binding,resize
v1 Service services svc nsa
v1 Endpoints endpoints ep n
v1 ConfigMap configmaps cm n
v1 Secret secrets - n
v1 ServiceAccount serviceaccounts sa n
v1 PersistentVolumeClaim persistentvolumeclaims pvc ns
v1 PersistentVolume persistentvolumes pv s
v1 ResourceQuota resourcequotas quota ns
v1 LimitRange limitranges limits n
v1 Event events ev n
v1 PodTemplate podtemplates - n
v1 ReplicationController replicationcontrollers rc nscag
apps/v1 Deployment deployments deploy nscag
apps/v1 ReplicaSet replicasets rs nscag
apps/v1 StatefulSet statefulsets sts nscag
apps/v1 DaemonSet daemonsets ds nsag
apps/v1 ControllerRevision controllerrevisions - n
batch/v1 Job jobs - nsag
batch/v1 CronJob cronjobs cj nsag
networking.k8s.io/v1 Ingress ingresses ing nsg
networking.k8s.io/v1 IngressClass ingressclasses - g
networking.k8s.io/v1 NetworkPolicy networkpolicies netpol ng
policy/v1 PodDisruptionBudget poddisruptionbudgets pdb nsg
autoscaling/v2 HorizontalPodAutoscaler horizontalpodautoscalers hpa nsa
rbac.authorization.k8s.io/v1 Role roles - n
rbac.authorization.k8s.io/v1 RoleBinding rolebindings - n
rbac.authorization.k8s.io/v1 ClusterRole clusterroles - -
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings - -
coordination.k8s.io/v1 Lease leases - n
scheduling.k8s.io/v1 PriorityClass priorityclasses pc g
storage.k8s.io/v1 StorageClass storageclasses sc -
discovery.k8s.io/v1 EndpointSlice endpointslices - ng
events.k8s.io/v1 Event events ev n
apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions crd,crds sg
";

/// Everything that is served, by path, kind and key.
#[derive(Clone, Debug)]
pub struct Registry {
    served: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String), usize>,
    by_key: HashMap<Arc<str>, usize>,
}

impl Registry {
    /// Returns the registry of Kubernetes' own kinds.
    pub fn builtin() -> Self {
        static BUILTIN: OnceLock<Registry> = OnceLock::new();
        BUILTIN.get_or_init(Self::of_table).clone()
    }

    fn of_table() -> Self {
        let served = TABLE.lines().filter(|line| !line.is_empty()).filter_map(row).map(Arc::new).collect();
        let mut made = Self { served, by_path: HashMap::new(), by_kind: HashMap::new(), by_key: HashMap::new() };
        made.index();
        made
    }

    fn index(&mut self) {
        self.by_path.clear();
        self.by_kind.clear();
        self.by_key.clear();
        for (index, resource) in self.served.iter().enumerate() {
            let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            self.by_path.insert(path, index);
            self.by_kind.insert((resource.api_version.clone(), resource.kind.clone()), index);
            if resource.custom.as_ref().is_some_and(|custom| custom.stored) {
                self.by_key.insert(resource.key.clone(), index);
            } else {
                self.by_key.entry(resource.key.clone()).or_insert(index);
            }
        }
    }

    /// Returns all, in the order of discovery.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.served
    }

    /// Returns the resource at `/apis/<group>/<version>/…/<plural>`.
    pub fn at_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).map(|index| &self.served[*index])
    }

    /// Returns whether anything is served in a group and version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.served.iter().any(|resource| resource.group == group && resource.version == version)
    }

    /// Returns the resource of `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&(api_version.to_owned(), kind.to_owned())).map(|index| &self.served[*index])
    }

    /// Returns the resource stored under a key, in the version that is stored.
    pub fn of_key(&self, key: &str) -> Option<&Arc<Resource>> {
        self.by_key.get(key).map(|index| &self.served[*index])
    }

    /// Serves what a custom resource definition defines, in place of what it defined before.
    pub fn define(&mut self, definition: &Value) {
        let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        let key: Arc<str> = definition["metadata"]["name"].as_str().unwrap_or_default().into();
        self.served.retain(|resource| resource.key != key);
        for version in spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true) {
            let subresources = &version["subresources"];
            let path = |value: &Value| {
                let path = value.as_str()?.trim_start_matches('.');
                Some(path.split('.').map(str::to_owned).collect::<Vec<_>>())
            };
            let scale = subresources.get("scale").and_then(|scale| {
                Some(ScalePaths {
                    spec: path(&scale["specReplicasPath"])?,
                    status: path(&scale["statusReplicasPath"])?,
                    selector: path(&scale["labelSelectorPath"]),
                })
            });
            let schema = version["schema"].get("openAPIV3Schema");
            self.served.push(Arc::new(Resource {
                key: key.clone(),
                group: text(&spec["group"]),
                version: text(&version["name"]),
                api_version: format!("{}/{}", text(&spec["group"]), text(&version["name"])),
                kind: text(&names["kind"]),
                plural: text(&names["plural"]),
                singular: match names["singular"].as_str() {
                    Some(name) if !name.is_empty() => name.to_owned(),
                    _ => text(&names["kind"]).to_lowercase(),
                },
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                shape: schema::custom::object(schema),
                subresources: ["status", "scale"]
                    .into_iter()
                    .filter(|name| subresources.get(*name).is_some())
                    .map(str::to_owned)
                    .collect(),
                generation: true,
                custom: Some(Custom {
                    columns: version["additionalPrinterColumns"].clone(),
                    scale,
                    stored: version["storage"] == true,
                }),
            }));
        }
        self.index();
    }

    /// Stops serving what is stored under `key`.
    pub fn undefine(&mut self, key: &str) {
        self.served.retain(|resource| &*resource.key != key);
        self.index();
    }
}

fn row(line: &str) -> Option<Resource> {
    let mut words = line.split_whitespace();
    let (group_version, kind, plural) = (words.next()?, words.next()?, words.next()?);
    let (short, flags, further) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let list = |text: &str| text.split(',').filter(|name| !matches!(*name, "" | "-")).map(str::to_owned).collect();
    let mut subresources: Vec<String> = list(further);
    subresources.extend(flags.contains('s').then(|| "status".to_owned()));
    subresources.extend(flags.contains('c').then(|| "scale".to_owned()));
    // Both groups of events are one storage, kept in the core form.
    let key = if group.is_empty() || kind == "Event" { plural.to_owned() } else { format!("{plural}.{group}") };
    Some(Resource {
        key: key.into(),
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: group_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: list(short),
        categories: if flags.contains('a') { vec!["all".to_owned()] } else { Vec::new() },
        namespaced: flags.contains('n'),
        shape: schema::builtin().object(group, version, kind)?,
        subresources,
        generation: flags.contains('g'),
        custom: None,
    })
}
