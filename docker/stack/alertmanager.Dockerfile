# For the kind cluster of the tests, which can pull nothing. prometheus-operator gives the arguments.
FROM scratch
LABEL org.opencontainers.image.title="alertmanager"
LABEL org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 alertmanager /bin/alertmanager
USER 65534:65534
EXPOSE 9093
ENTRYPOINT ["/bin/alertmanager"]
