# For the kind cluster of the tests, which can pull nothing. The entry point is where prometheus-operator's own image has it.
FROM scratch
LABEL org.opencontainers.image.title="prometheus-operator"
LABEL org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 prometheus-operator /bin/operator
USER 65534:65534
ENTRYPOINT ["/bin/operator"]
