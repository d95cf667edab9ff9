# The operator. Kubernetes mounts the certificates of the only server that it calls, so there are none in here.
FROM scratch
LABEL org.opencontainers.image.title="rosey-operator"
LABEL org.opencontainers.image.description="Makes of a RoseyMonitor what a Prometheus stack understands, and puts an exporter beside each bot"
LABEL org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 rosey-operator /rosey-operator
USER 65532:65532
ENTRYPOINT ["/rosey-operator"]
