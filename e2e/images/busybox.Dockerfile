# Clients and small servers of the stories: a static busybox and links to what they use of it.
FROM scratch
COPY root/ /
USER 65534:65534
ENTRYPOINT ["/bin/busybox"]
