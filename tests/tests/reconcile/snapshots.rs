//! The objects that are built, as a reviewer reads them, and what of a `podTemplate` is refused.

use corral_operator::pool::build::{Defaults, PodCounts, build, template};
use corral_operator::pool::revision::inputs::RevisionId;
use corral_operator::pool::validate::ValidPool;
use serde_json::{Value, json};

use super::world::pool_of;

fn defaults() -> Defaults {
    Defaults { sidecar_image: "corral/sidecar:1".to_owned() }
}

fn built(spec: &Value) -> Value {
    let pool = ValidPool::of(&pool_of(spec)).unwrap();
    let id = RevisionId::of(&pool).unwrap();
    let counts = PodCounts { replicas: pool.spec.replicas, unschedulable: 0 };
    let prepared = build(&pool, &id, template(&pool, &defaults()).unwrap(), counts).unwrap();
    json!({"service": prepared.service, "deployment": prepared.deployment, "budget": prepared.budget})
}

fn refused(theirs: &Value) -> String {
    let spec = json!({"podTemplate": theirs});
    let pool = ValidPool::of(&pool_of(&spec)).unwrap();
    template(&pool, &defaults()).unwrap_err().to_string()
}

fn pod(template: &Value) -> Value {
    built(&json!({"podTemplate": template}))["deployment"]["spec"]["template"].clone()
}

#[test]
fn an_empty_spec_is_one_pod_with_one_nvidia_gpu() {
    insta::assert_yaml_snapshot!(built(&json!({})));
}

#[test]
fn every_field_of_a_pool_has_its_effect() {
    let spec = json!({
        "replicas": 3,
        "image": "registry.example/ollama:9",
        "gpu": {"vendor": "amd", "count": 2, "resourceName": "amd.com/mi300",
            "requirements": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
        "ollama": {"numParallel": 4, "maxLoadedModels": 2, "contextLength": 8192, "keepAlive": "24h",
            "flashAttention": true, "kvCacheType": "q8_0", "env": [{"name": "OLLAMA_DEBUG", "value": "1"}]},
        "storage": {"persistentVolumeClaim": {"claimName": "models", "readOnly": true}},
        "sidecar": {"image": "registry.example/sidecar:9", "resources": {"requests": {"cpu": 1}}},
        "drain": {"delaySeconds": 10, "timeoutSeconds": 600},
        "rollout": {"maxUnavailable": "50%", "maxSurge": 1, "progressDeadlineSeconds": 7200},
        "service": {"type": "NodePort", "port": 80, "annotations": {"a": "b"}},
    });
    insta::assert_yaml_snapshot!(built(&spec));
}

#[test]
fn a_pool_without_gpus_sees_none_and_rolls_by_quarters() {
    insta::assert_yaml_snapshot!(built(&json!({"gpu": {"vendor": "none"}}))["deployment"]);
}

#[test]
fn a_template_adds_what_pods_commonly_need() {
    let template = pod(&json!({
        "metadata": {"labels": {"team": "x"}, "annotations": {"k": "v"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "runtimeClassName": "nvidia",
            "imagePullSecrets": [{"name": "registry"}], "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsUser": 1000, "fsGroup": 1000},
            "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "containers": [
                {"name": "ollama", "env": [{"name": "HTTPS_PROXY", "value": "http://p"}],
                 "resources": {"limits": {"memory": "32Gi"}},
                 "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/ca"}]},
                {"name": "exporter", "image": "x", "ports": [{"containerPort": 9400}]},
            ],
        },
    }));
    let spec = &template["spec"];
    assert_eq!(template["metadata"]["labels"]["team"], "x");
    assert_eq!(template["metadata"]["labels"]["corral.dev/pool"], "chat");
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["securityContext"]["runAsUser"], 1000);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["containers"].as_array().unwrap().len(), 2);
    let limits = &spec["containers"][0]["resources"]["limits"];
    assert_eq!((limits["memory"].as_str(), limits["nvidia.com/gpu"].as_str()), (Some("32Gi"), Some("1")));
    assert_eq!(spec["initContainers"][0]["name"], "limiter");
}

/// A template that changes one container, and says what it is refused with.
fn refuses_in(list: &str, name: &str, change: &Value, told: &str) {
    let mut container = json!({"name": name});
    container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    refuses(&json!({"spec": {list: [container]}}), told);
}

fn refuses(template: &Value, told: &str) {
    let error = refused(template);
    assert!(error.contains(told), "{template}: {error}");
}

#[test]
fn a_template_opens_no_namespace_and_undoes_nothing_of_the_pod() {
    for (template, told) in [
        (json!({"spec": {"hostNetwork": true}}), "spec.hostNetwork is not allowed"),
        (json!({"spec": {"hostPID": true}}), "spec.hostPID is not allowed"),
        (json!({"spec": {"shareProcessNamespace": true}}), "spec.shareProcessNamespace is not allowed"),
        (json!({"spec": {"restartPolicy": "Never"}}), "spec.restartPolicy is not allowed"),
        (json!({"spec": {"automountServiceAccountToken": true}}), "spec.automountServiceAccountToken is set"),
        (json!({"spec": {"terminationGracePeriodSeconds": 1}}), "spec.terminationGracePeriodSeconds is set"),
        (json!({"spec": {"securityContext": {"runAsNonRoot": false}}}), "runAsNonRoot is set by Corral"),
        (
            json!({"metadata": {"labels": {"corral.dev/pool": "other"}}}),
            "metadata.labels.corral.dev/pool is set",
        ),
        (
            json!({"spec": {"volumes": [{"name": "corral-keys", "secret": {"secretName": "x"}}]}}),
            "corral-keys",
        ),
        (json!({"spec": {"volumes": [{"name": "k", "secret": {"secretName": "chat-key"}}]}}), "volume k"),
        (json!({"status": {}}), "status is no part of a pod template"),
        (json!({"spec": {"containers": "x"}}), "podTemplate"),
    ] {
        refuses(&template, told);
    }
}

#[test]
fn a_template_leaves_ollama_and_the_sidecar_what_they_are() {
    for (change, told) in [
        (json!({"env": [{"name": "OLLAMA_HOST", "value": "0.0.0.0:11434"}]}), "OLLAMA_HOST"),
        (json!({"env": [{"name": "OLLAMA_ORIGINS", "value": "*"}]}), "OLLAMA_ORIGINS is not for podTemplate"),
        (json!({"command": ["sh"]}), "command of container ollama"),
        (json!({"image": "other"}), "image is set by Corral"),
        (json!({"envFrom": [{"secretRef": {"name": "x"}}]}), "envFrom of container ollama"),
        (json!({"ports": [{"containerPort": 11435}]}), "ports of container ollama"),
        (
            json!({"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}),
            "lifecycle.postStart of container",
        ),
        (json!({"securityContext": {"privileged": true}}), "securityContext.privileged of container ollama"),
        (json!({"livenessProbe": {"periodSeconds": 1}}), "livenessProbe.periodSeconds is set by Corral"),
        (json!({"volumeMounts": [{"name": "corral-keys", "mountPath": "/k"}]}), "volume corral-keys"),
        (json!({"resources": {"limits": {"nvidia.com/gpu": "4"}}}), "resources.limits.nvidia.com/gpu is set"),
    ] {
        refuses_in("containers", "ollama", &change, told);
    }
    for (change, told) in [
        (json!({"args": ["--policy=x"]}), "args is set by Corral"),
        (json!({"env": [{"name": "CORRAL_UPSTREAM", "value": "x"}]}), "env"),
        (json!({"ports": [{"containerPort": 11434, "hostPort": 80, "protocol": "TCP"}]}), "host ports"),
    ] {
        refuses_in("initContainers", "limiter", &change, told);
    }
}

#[test]
fn a_container_of_the_users_own_takes_neither_our_ports_nor_our_volumes() {
    for (change, told) in [
        (json!({"image": "x", "ports": [{"containerPort": 11434}]}), "port 11434 is Corral's"),
        (json!({"image": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}), "host ports are not allowed"),
        (
            json!({"image": "x", "volumeMounts": [{"name": "corral-state", "mountPath": "/s"}]}),
            "corral-state",
        ),
    ] {
        refuses_in("containers", "extra", &change, told);
    }
}

#[test]
fn every_fault_of_a_template_is_told_at_once() {
    let error = refused(&json!({"spec": {"hostNetwork": true, "hostPID": true}}));
    assert!(error.contains("hostNetwork") && error.contains("hostPID"), "{error}");
}
