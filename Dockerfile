# Two stages: the toolchain stays behind. Dependencies are built in a layer of their own, so that a change of our code
# does not build them again.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY tests/testnet/Cargo.toml tests/testnet/Cargo.toml
# Empty targets: enough for cargo to build every dependency, and for nothing of ours to be in that layer.
RUN mkdir -p src tests/testnet/src tests/it tests/e2e benches examples \
 && touch src/lib.rs tests/testnet/src/lib.rs && echo 'fn main() {}' > src/main.rs \
 && for f in $(sed -n 's/^path = "\(.*\.rs\)"$/\1/p' Cargo.toml); do mkdir -p "$(dirname "$f")" && echo 'fn main() {}' > "$f"; done \
 && for b in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' Cargo.toml); do [ -e "benches/$b.rs" ] || echo 'fn main() {}' > "benches/$b.rs"; done \
 && cargo build --release --locked --bin exitgate \
 && rm -rf src target/release/exitgate target/release/deps/exitgate* target/release/deps/libexitgate* target/release/.fingerprint/exitgate*
COPY src src
COPY config config
RUN cargo build --release --locked --bin exitgate && strip target/release/exitgate

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends tor tor-geoipdb \
 && rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/man /var/cache/apt /var/log/apt \
 && mkdir /data && chown 10001:10001 /data
COPY --from=build /src/target/release/exitgate /usr/bin/exitgate
COPY config/exitgate.toml /usr/share/exitgate/exitgate.toml
# A number and not a name, so that an orchestrator can see that it is not root. Nothing is written outside /data.
USER 10001:10001
WORKDIR /data
VOLUME /data
# Beyond loopback without keys of your own, exitgate makes a key and a token, and keeps them in /data.
ENV EXITGATE__DATA_DIR=/data \
    EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080 \
    EXITGATE__GATEWAY__ROUTE_BIND=0.0.0.0 \
    EXITGATE__API__LISTEN=0.0.0.0:8080
EXPOSE 1080 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["exitgate", "health"]
LABEL org.opencontainers.image.title="exitgate" \
      org.opencontainers.image.description="A SOCKS and HTTP gateway with tested exits behind it" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENTRYPOINT ["exitgate"]
CMD ["serve"]
