//! What a pool means where its spec is silent and the default depends on another field.

use crate::{
    pool::{Gpu, GpuVendor, OllamaPoolSpec},
    value::IntOrString,
};

/// The Ollama release that Corral is tested with.
pub const OLLAMA_IMAGE: &str = "docker.io/ollama/ollama:0.32.15";
/// The same release for AMD GPUs.
pub const OLLAMA_IMAGE_ROCM: &str = "docker.io/ollama/ollama:0.32.15-rocm";

impl OllamaPoolSpec {
    /// The Ollama image to run.
    pub fn ollama_image(&self) -> &str {
        let default = if self.gpu.vendor == GpuVendor::Amd { OLLAMA_IMAGE_ROCM } else { OLLAMA_IMAGE };
        self.image.as_deref().unwrap_or(default)
    }

    /// How many pods may be missing during a rollout: 1 where pods hold GPUs, else a quarter.
    pub fn max_unavailable(&self) -> IntOrString {
        self.rollout.max_unavailable.clone().unwrap_or_else(|| self.by_gpu(1))
    }

    /// How many pods more than asked for may run during a rollout: none where they hold GPUs, else a quarter.
    pub fn max_surge(&self) -> IntOrString {
        self.rollout.max_surge.clone().unwrap_or_else(|| self.by_gpu(0))
    }

    fn by_gpu(&self, with_gpu: i64) -> IntOrString {
        match self.gpu.extended_resource() {
            Some(_) => IntOrString::Int(with_gpu),
            None => IntOrString::String("25%".to_owned()),
        }
    }
}

impl Gpu {
    /// The extended resource each pod asks for, and how much of it; none without GPUs.
    pub fn extended_resource(&self) -> Option<(&str, u32)> {
        let default = match self.vendor {
            GpuVendor::Nvidia => "nvidia.com/gpu",
            GpuVendor::Amd => "amd.com/gpu",
            GpuVendor::Intel => "gpu.intel.com/i915",
            GpuVendor::None => return None,
        };
        Some((self.resource_name.as_deref().unwrap_or(default), self.count.unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vendor: GpuVendor) -> OllamaPoolSpec {
        OllamaPoolSpec { gpu: Gpu { vendor, ..Gpu::default() }, ..OllamaPoolSpec::default() }
    }

    #[test]
    fn an_empty_spec_is_one_nvidia_gpu_replaced_one_by_one() {
        let pool = OllamaPoolSpec::default();
        assert_eq!(pool.gpu.extended_resource(), Some(("nvidia.com/gpu", 1)));
        assert_eq!((pool.max_unavailable(), pool.max_surge()), (IntOrString::Int(1), IntOrString::Int(0)));
        assert_eq!(pool.ollama_image(), OLLAMA_IMAGE);
    }

    #[test]
    fn amd_takes_the_rocm_image_and_a_named_image_wins() {
        let mut pool = of(GpuVendor::Amd);
        assert_eq!(pool.ollama_image(), OLLAMA_IMAGE_ROCM);
        pool.image = Some("registry.example/ollama:1".into());
        assert_eq!(pool.ollama_image(), "registry.example/ollama:1");
    }

    #[test]
    fn without_gpus_pods_are_replaced_by_quarters() {
        let pool = of(GpuVendor::None);
        assert_eq!(pool.gpu.extended_resource(), None);
        assert_eq!(pool.max_surge().to_string(), "25%");
    }
}
