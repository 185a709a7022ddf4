# Holds a pod's network namespace and does nothing.
FROM scratch
COPY root/ /
USER 65534:65534
ENTRYPOINT ["/bin/busybox", "sleep", "infinity"]
