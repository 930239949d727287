# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the layer; the program leaves them by copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin apixx-mcp \
    && install -D target/dist/apixx-mcp /out/apixx-mcp

FROM debian:bookworm-slim
# PostgreSQL's programs, for the private database that is started when none is configured; Debian would also
# make a cluster of its own, which nobody needs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates postgresql-common \
    && sed --in-place --regexp-extended 's/^#?create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf \
    && apt-get install --yes --no-install-recommends postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin apixx \
    && install --directory --owner apixx --group apixx --mode 0700 /var/lib/apixx-mcp
COPY --from=build /out/apixx-mcp /usr/local/bin/apixx-mcp

USER apixx
# Listens for the proxy in front of it. Tell it what clients call it: APIXX_SERVER__PUBLIC_URL, and whose
# X-Forwarded-For to believe: APIXX_SERVER__TRUSTED_PROXIES.
ENV APIXX_SERVER__LISTEN=0.0.0.0:8080 \
    APIXX_DATABASE__DATA_DIR=/var/lib/apixx-mcp
VOLUME /var/lib/apixx-mcp
EXPOSE 8080
# The operator's address, which a worker has, too; or any HTTP answer, where that address is another.
HEALTHCHECK --interval=10s --timeout=9s --start-period=30s CMD ["bash", "-c", \
    "for port in 9464 8080; do \
         (exec 3<>/dev/tcp/127.0.0.1/$port && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 \
             && read -r -t 4 line <&3 && [[ $line == HTTP/* ]]) && exit 0; \
     done; exit 1"]
ENTRYPOINT ["apixx-mcp"]
CMD ["serve", "--with-worker"]
