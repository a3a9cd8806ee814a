# Three stages, so that the image contains neither the toolchain nor the parts of Debian's base that exitgate and tor do not use.
# Dependencies are built in a layer of their own, so that a change of the code does not build them again.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches/engine/Cargo.toml benches/engine/Cargo.toml
COPY benches/peers/Cargo.toml benches/peers/Cargo.toml
COPY benches/pieces/Cargo.toml benches/pieces/Cargo.toml
COPY benches/public/Cargo.toml benches/public/Cargo.toml
COPY benches/shared/Cargo.toml benches/shared/Cargo.toml
COPY benches/soak/Cargo.toml benches/soak/Cargo.toml
COPY tests/simnet/Cargo.toml tests/simnet/Cargo.toml
COPY tests/simtor/Cargo.toml tests/simtor/Cargo.toml
COPY tests/testnet/Cargo.toml tests/testnet/Cargo.toml
# With empty sources cargo builds every dependency. The results for exitgate itself are deleted: cargo compares the times of files, and the
# real sources are older.
RUN for member in . benches/* tests/simnet tests/simtor tests/testnet; do mkdir -p "$member/src" && echo 'fn main() {}' > "$member/src/main.rs"; done \
 && touch src/lib.rs benches/shared/src/lib.rs tests/simtor/src/lib.rs tests/testnet/src/lib.rs \
 && cargo build --release --locked --bin exitgate \
 && rm -rf src target/release/exitgate* target/release/.fingerprint/exitgate-* \
           target/release/deps/exitgate-* target/release/deps/libexitgate-*
COPY src src
COPY config config
RUN cargo build --release --locked --bin exitgate

FROM debian:bookworm-slim AS root
# Perl (with apt, whose scripts need it) and the tables of iconv are an eighth of the image. Only the image's user can read /data, and a new
# volume copies that; /run/tor is for the cookies of tor in other containers.
# tor is that of the Tor Project's repository, because Debian's is older. The build fails if it is not recommended: docs/current-tor.md.
ARG TOR_CHECK=yes
ADD https://deb.torproject.org/torproject.org/A3C4F0F979CAA22CDBA8F512EE8CBC9E886DDD89.asc /usr/share/keyrings/tor-archive-keyring.asc
COPY .ci/recommended-tor config/recommended-tor.txt /tmp/
RUN chmod 0644 /usr/share/keyrings/tor-archive-keyring.asc \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && echo 'deb [signed-by=/usr/share/keyrings/tor-archive-keyring.asc] https://deb.torproject.org/torproject.org bookworm main' \
      > /etc/apt/sources.list.d/tor.list \
 && apt-get update \
 && apt-get install -y --no-install-recommends tor tor-geoipdb obfs4proxy \
 && if [ "$TOR_CHECK" != no ]; then /tmp/recommended-tor /tmp/recommended-tor.txt; fi \
 && rm /tmp/recommended-tor /tmp/recommended-tor.txt \
 && dpkg --purge --force-depends --force-remove-essential apt perl-base \
 && rm -rf /var/lib/apt /var/cache/apt /var/cache/debconf /var/log/* /usr/share/doc /usr/share/man \
           /usr/lib/*-linux-gnu*/gconv \
 && install -d -o 10001 -g 10001 -m 0700 /data /run/tor

# From scratch, because a layer that removes files does not make the layers below it smaller.
FROM scratch
LABEL org.opencontainers.image.title="exitgate" \
      org.opencontainers.image.description="A SOCKS and HTTP forwarding gateway with tested exits behind it" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=root / /
COPY --from=build /src/target/release/exitgate /usr/bin/exitgate
# A number instead of a name, so that an orchestrator can see that it is not root. exitgate writes only to /data.
USER 10001:10001
WORKDIR /data
VOLUME /data
# exitgate listens beyond loopback here, so it makes a key and a token and keeps them in /data, unless you set your own. These variables
# override a configuration file: mount yours at /etc/exitgate/exitgate.toml, without listen addresses.
ENV EXITGATE__DATA_DIR=/data \
    EXITGATE__GATEWAY__LISTEN=0.0.0.0:1080 \
    EXITGATE__GATEWAY__ROUTE_BIND=0.0.0.0 \
    EXITGATE__API__LISTEN=0.0.0.0:8080
EXPOSE 1080 8080
STOPSIGNAL SIGTERM
# Checks that the process lives, not that it is ready: a restart does not help a gateway that waits for the Tor network.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["exitgate", "health"]
ENTRYPOINT ["exitgate"]
CMD ["serve"]
