# The sidecar. `make images` builds the binary and writes the image, with Docker or without.
FROM scratch
LABEL org.opencontainers.image.title="rosey-exporter"
LABEL org.opencontainers.image.description="Reads a chat bot inside its own pod and serves what it reads to Prometheus"
LABEL org.opencontainers.image.licenses="Apache-2.0"
# A Pushgateway behind https is judged by these, where its configuration names no others.
COPY --chmod=0644 ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chmod=0755 rosey-exporter /rosey-exporter
USER 65532:65532
EXPOSE 9100
ENTRYPOINT ["/rosey-exporter"]
