# For the kind cluster of the tests, which can pull nothing. prometheus-operator gives the arguments.
FROM scratch
LABEL org.opencontainers.image.title="prometheus-config-reloader"
LABEL org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 prometheus-config-reloader /bin/prometheus-config-reloader
USER 65534:65534
ENTRYPOINT ["/bin/prometheus-config-reloader"]
