# The twinlog binary on a small Debian.
# The build image has the headers of zlib and OpenSSL, which librdkafka is compiled with.
FROM rust:1-bookworm AS build
WORKDIR /twinlog
COPY . .
RUN cargo build --locked --release --bin twinlog

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends zlib1g libssl3 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home twinlog
COPY --from=build /twinlog/target/release/twinlog /usr/local/bin/twinlog
USER twinlog
EXPOSE 8088
ENTRYPOINT ["twinlog"]
CMD ["run", "-c", "/etc/twinlog/twinlog.yaml"]
