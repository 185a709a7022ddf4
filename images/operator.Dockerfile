# The operator alone: a static binary, no shell, no libc, no root. The build context is a folder that holds the binary.
FROM scratch
COPY corral-operator /corral-operator
USER 65532:65532
ENTRYPOINT ["/corral-operator"]
