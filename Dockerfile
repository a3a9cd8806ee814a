# Three stages: the toolchain stays behind, and so does what Debian's base has that neither exitgate nor tor uses.
# Dependencies are built in a layer of their own, so that a change of our code does not build them again.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches/engine/Cargo.toml benches/engine/Cargo.toml
COPY benches/peers/Cargo.toml benches/peers/Cargo.toml
COPY benches/pieces/Cargo.toml benches/pieces/Cargo.toml
COPY benches/public/Cargo.toml benches/public/Cargo.toml
COPY benches/soak/Cargo.toml benches/soak/Cargo.toml
COPY tests/simnet/Cargo.toml tests/simnet/Cargo.toml
COPY tests/simtor/Cargo.toml tests/simtor/Cargo.toml
COPY tests/testnet/Cargo.toml tests/testnet/Cargo.toml
# Empty sources: enough for cargo to build every dependency. What it makes of them is forgotten, because it goes by the
# times of files, and ours are older.
RUN for member in . benches/* tests/simnet tests/simtor tests/testnet; do mkdir -p "$member/src" && echo 'fn main() {}' > "$member/src/main.rs"; done \
 && touch src/lib.rs tests/simtor/src/lib.rs tests/testnet/src/lib.rs \
 && cargo build --release --locked --bin exitgate \
 && rm -rf src target/release/exitgate* target/release/.fingerprint/exitgate-* \
           target/release/deps/exitgate-* target/release/deps/libexitgate-*
COPY src src
COPY config config
RUN cargo build --release --locked --bin exitgate

FROM debian:bookworm-slim AS root
# Perl (with apt, whose scripts are lost without it) and the tables of iconv are an eighth of the image. /data is its
# user's alone, and so is a volume that begins as its copy; /run/tor is for cookies of tors in other containers.
RUN apt-get update \
 && apt-get install -y --no-install-recommends tor tor-geoipdb \
 && dpkg --purge --force-depends --force-remove-essential apt perl-base \
 && rm -rf /var/lib/apt /var/cache/apt /var/cache/debconf /var/log/* /usr/share/doc /usr/share/man \
           /usr/lib/*-linux-gnu*/gconv \
 && install -d -o 10001 -g 10001 -m 0700 /data /run/tor

# From nothing, because a layer that removes a file does not make the layers below it smaller.
FROM scratch
LABEL org.opencontainers.image.title="exitgate" \
      org.opencontainers.image.description="A SOCKS and HTTP forwarding gateway with tested exits behind it" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=root / /
COPY --from=build /src/target/release/exitgate /usr/bin/exitgate
# A number and not a name, so that an orchestrator can see that it is not root. Nothing is written outside /data.
USER 10001:10001
WORKDIR /data
VOLUME /data
# Beyond loopback and without keys of your own, exitgate makes a key and a token, and keeps them in /data. These come
# before a file's keys: mount yours at /etc/exitgate/exitgate.toml, and leave addresses to the container.
ENV EXITGATE__DATA_DIR=/data \
    EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080 \
    EXITGATE__GATEWAY__ROUTE_BIND=0.0.0.0 \
    EXITGATE__API__LISTEN=0.0.0.0:8080
EXPOSE 1080 8080
STOPSIGNAL SIGTERM
# Alive, not ready: a gateway that waits for Tor's network is not helped by a restart.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["exitgate", "health"]
ENTRYPOINT ["exitgate"]
CMD ["serve"]
