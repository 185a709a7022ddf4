//! A read-only Ollama model store with tiny models, as Ollama itself would have pulled them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::gguf::{self, Shape};
use crate::machine::cache::{Cache, digest};
use crate::machine::console::step;

/// Raised when the generator writes other bytes for the same shapes.
const GENERATION: &str = "1";

/// Names and shapes. `slow` takes long enough per token to see a stream arrive piece by piece and queues grow.
const MODELS: [(&str, Shape); 2] = [
    ("tiny", Shape { width: 128, depth: 2, context: 4096 }),
    ("slow", Shape { width: 1024, depth: 6, context: 4096 }),
];

const TEMPLATE: &str = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n";

/// The store's folder.
pub fn store(cache: &Cache) -> Result<PathBuf> {
    let shapes = MODELS.map(|(name, shape)| format!("{name} {shape:?}"));
    let id = format!("models-{}", digest(shapes.iter().map(String::as_str).chain([GENERATION, TEMPLATE])));
    cache.entry(&id, check, |folder| {
        step("making tiny models", || MODELS.iter().try_for_each(|(name, shape)| add(folder, name, *shape)))
    })
}

fn add(store: &Path, name: &str, shape: Shape) -> Result<()> {
    let blobs = store.join("blobs");
    fs::create_dir_all(&blobs)?;
    let layers = [
        put(&blobs, &gguf::model(name, shape), "application/vnd.ollama.image.model")?,
        put(&blobs, TEMPLATE.as_bytes(), "application/vnd.ollama.image.template")?,
    ];
    let digests: Vec<&Value> = layers.iter().filter_map(|layer| layer.get("digest")).collect();
    let config = json!({
        "model_format": "gguf", "model_family": "llama", "model_families": ["llama"], "model_type": "tiny",
        "file_type": "F16", "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    let config =
        put(&blobs, config.to_string().as_bytes(), "application/vnd.docker.container.image.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": config,
        "layers": layers,
    });
    let place = manifest_path(store, name);
    fs::create_dir_all(place.parent().context("a manifest lies in a folder")?)?;
    Ok(fs::write(place, manifest.to_string())?)
}

fn manifest_path(store: &Path, name: &str) -> PathBuf {
    store.join("manifests/registry.ollama.ai/library").join(name).join("latest")
}

fn put(blobs: &Path, bytes: &[u8], media_type: &str) -> Result<Value> {
    let hash = hex::encode(Sha256::digest(bytes));
    fs::write(blobs.join(format!("sha256-{hash}")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len() }))
}

fn check(store: &Path) -> Result<()> {
    for (name, _) in MODELS {
        let manifest: Value = serde_json::from_slice(&fs::read(manifest_path(store, name))?)?;
        let layers = manifest.get("layers").and_then(Value::as_array).context("a manifest has layers")?;
        for layer in layers.iter().chain(manifest.get("config")) {
            let hash = layer.get("digest").and_then(Value::as_str).unwrap_or_default().replace(':', "-");
            let length = fs::metadata(store.join("blobs").join(&hash))?.len();
            ensure!(layer.get("size").and_then(Value::as_u64) == Some(length), "{name}: {hash} is cut short");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_with_a_truncated_blob_is_not_accepted() {
        let folder = std::env::temp_dir().join(format!("corral-store-{}", std::process::id()));
        let shape = Shape { width: 64, depth: 1, context: 256 };
        for (name, _) in MODELS {
            add(&folder, name, shape).unwrap();
        }
        check(&folder).unwrap();
        for blob in fs::read_dir(folder.join("blobs")).unwrap() {
            fs::write(blob.unwrap().path(), "cut").unwrap();
        }
        assert!(check(&folder).unwrap_err().to_string().contains("cut short"));
        fs::remove_dir_all(folder).unwrap();
    }
}
