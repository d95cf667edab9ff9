# A bot that breaks on demand, for examples and tests.
FROM scratch
LABEL org.opencontainers.image.title="fake-bot"
LABEL org.opencontainers.image.description="A chat bot that breaks on demand, to try Rosey Monitor with"
LABEL org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 fake-bot /fake-bot
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/fake-bot"]
