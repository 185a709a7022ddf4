//! What a cluster is made of: each part built or fetched once, kept by version, checked before use.

pub mod api_clients;
pub mod engine;
pub mod gguf;
pub mod go;
pub mod images;
pub mod kubectl;
pub mod models;
pub mod promtool;
pub mod rootfs;
pub mod rust;

use std::path::PathBuf;

use anyhow::Result;

use crate::machine::cache::Cache;
use crate::machine::console::say;
use crate::machine::settings::Settings;

/// Where every part is.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Folder of kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and kubelet.
    pub kubernetes: PathBuf,
    /// The CoreDNS binary.
    pub coredns: PathBuf,
    /// kubectl and helm.
    pub clients: kubectl::Clients,
    /// The published clients of the three APIs.
    pub api_clients: api_clients::ApiClients,
    /// Prometheus' own judge of metrics.
    pub promtool: PathBuf,
    /// A read-only Ollama model store with the tiny models.
    pub models: PathBuf,
    /// Image archives to load into each node.
    pub images: Vec<images::Image>,
    /// The Helm chart of this checkout.
    pub chart: PathBuf,
}

impl Parts {
    /// Makes everything ready that is not yet; the first time this takes some minutes.
    pub fn prepare(settings: &Settings) -> Result<Self> {
        let cache = Cache::new(&settings.cache);
        say(format!("Preparing (cache {})", settings.cache.display()));
        Ok(Self {
            kubernetes: go::kubernetes(&cache, settings)?,
            coredns: go::coredns(&cache, settings)?.join("coredns"),
            clients: kubectl::fetch(&cache)?,
            api_clients: api_clients::fetch(&cache)?,
            promtool: promtool::fetch(&cache)?,
            models: models::store(&cache)?,
            images: images::build_all(&cache, settings)?,
            chart: settings.repository.join("charts/corral"),
        })
    }
}
