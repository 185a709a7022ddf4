# What a sidecar asks of an Ollama, as plain files of a web server: a story writes others over them. At first a model lies
# on the GPU with 40 % of itself.
FROM scratch
COPY root/ /
USER 65534:65534
ENTRYPOINT ["/bin/busybox", "sh", "-c", "cd \"$HOME\" && busybox mkdir -p api && echo '{\"version\":\"0.32.15\"}' > api/version && echo '{\"models\":[]}' > api/tags && echo '{\"models\":[{\"name\":\"llama3:latest\",\"model\":\"llama3:latest\",\"size\":5000,\"size_vram\":2000,\"expires_at\":\"2318-01-01T00:00:00Z\",\"context_length\":4096}]}' > api/ps && exec busybox httpd -f -p 127.0.0.1:11435 -h \"$HOME\""]
