//! `objects`: what 100,000 objects cost one server in memory, and how long it takes to start with them after a
//! `kill -9`.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::Settings;
use super::fleet::Fleet;
use super::processes::usage_of;
use super::report::Section;
use super::stats::millis;

const OBJECTS: usize = 100_000;
const VALUE_BYTES: usize = 256;
const CLIENTS: usize = 64;
const MIB: f64 = 1024.0 * 1024.0;

pub async fn measure(settings: &Settings) -> Result<Section> {
    let title = format!("{OBJECTS} ConfigMaps of {VALUE_BYTES} bytes in one server");
    let mut section = Section::new("objects", title, &["pss_mib", "start_ms"]);
    let mut fleet = Fleet::start(settings, 1).await?;
    let pss = |fleet: &Fleet| Some(usage_of(fleet.pid(0)).pss_bytes as f64 / MIB);
    fleet.kill(0).await?;
    let start = fleet.restart(0).await?;
    section.row("restarted without them", [pss(&fleet), Some(millis(start))]);
    fill(&fleet).await?;
    section.row("after they were written", [pss(&fleet), None]);
    fleet.kill(0).await?;
    let start = fleet.restart(0).await?;
    section.row("restarted with them", [pss(&fleet), Some(millis(start))]);
    fleet.stop().await?;
    Ok(section)
}

async fn fill(fleet: &Fleet) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(fleet.access(0).await?.client()?);
    let value = "x".repeat(VALUE_BYTES);
    let create = |number: usize| {
        let object = json!({ "metadata": { "name": format!("object-{number}") }, "data": { "value": value } });
        let object = serde_json::from_value(object).expect("the benchmark's objects fit their types");
        let api = api.clone();
        async move { api.create(&PostParams::default(), &object).await.map(drop) }
    };
    let all = stream::iter((0..OBJECTS).map(create)).buffer_unordered(CLIENTS);
    all.try_for_each(|()| async { Ok(()) }).await.context("cannot create the objects")
}
