//! Why Services cannot be switched between two versions, and pods not be asked for their health: said before anything is
//! planned.

use super::{nowhere, proxy, route, selects, services};
use crate::core::{
    manifest::Object,
    policy::Strategy,
    rollout::{
        health,
        render::{Render, Workload},
    },
    traffic::Means,
};

/// Says why an application's Services cannot be switched between two versions of its workloads.
pub(in crate::core::rollout) fn cannot_switch(render: &Render, strategy: &Strategy) -> Option<String> {
    let beside = strategy.beside()?;
    let sends_to = |service: &Object| -> Vec<&str> {
        render.workloads.values().filter(|one| selects(service, one)).map(|one| one.id.as_str()).collect()
    };
    let mut switched: Vec<&str> = Vec::new();
    for service in services(Some(render)) {
        match sends_to(service).as_slice() {
            [] => {}
            [_] if beside.preview_service == Some(service.name()) => {}
            [_] => switched.push(service.name()),
            several => {
                return Some(format!(
                    "Service/{} sends to {}: only one workload's versions can be told apart in a Service",
                    service.name(),
                    several.join(" and ")
                ));
            }
        }
    }
    let previews = beside.preview_service.filter(|_| switched.len() > 1).map(|name| {
        format!(
            "previewService is {name}, and there are Services {}: leave it out, and each gets one of its own",
            switched.join(", ")
        )
    });
    previews.or_else(|| {
        let router = beside.router?;
        let switched: Vec<&Object> =
            services(Some(render)).filter(|service| switched.contains(&service.name())).collect();
        match router.means(nowhere()) {
            Means::Objects(_) if switched.is_empty() => Some(format!("no Service is there for {router} to send to")),
            Means::Objects(_) => route::misfit(router, &render.objects, &switched, beside.suffix),
            Means::Proxy(_) => proxy::misfit(render, beside.preview_service),
        }
    })
}

/// Says why pods of a version cannot be asked for their health.
pub(in crate::core::rollout) fn cannot_ask(render: &Render, strategy: &Strategy) -> Option<String> {
    let check = strategy.beside()?.health_check?;
    let called = |workload: &&Workload| services(Some(render)).any(|service| selects(service, workload));
    let cannot = |workload: &&Workload| health::port_of(&workload.template()["spec"], &check.port).is_none();
    let workload = render.workloads.values().filter(called).find(cannot)?;
    Some(format!("healthCheck asks port {}, and no container of {} has a port of that name", check.port, workload.id))
}
