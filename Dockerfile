# syntax=docker/dockerfile:1
# The one image of Trireme: coordinator, worker and command line. For a build that repeats bit by bit, name the two
# base images by digest:
#   docker build --build-arg RUST_IMAGE=docker.io/library/rust@sha256:… --build-arg BASE_IMAGE=…@sha256:… -t trireme .
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# what trireme_build_info tells: --build-arg REVISION=$(git rev-parse --short HEAD)
ARG REVISION=unknown
# no paths and no times of this machine in the binary, nothing that Cargo.lock does not name
ENV RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo" \
    CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
    SOURCE_DATE_EPOCH=0 \
    TRIREME_REVISION=${REVISION}
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package trireme --bin trireme \
    && install -m 755 target/release/trireme /usr/local/bin/trireme

# glibc, certificates of public authorities, and no shell
FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="trireme" \
      org.opencontainers.image.description="Runs AI agent loops fast" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /usr/local/bin/trireme /usr/local/bin/trireme
USER 65532:65532
# the API of a coordinator; health and metrics of a worker
EXPOSE 8080 9090
# of a coordinator; a worker that is started with another --listen sets TRIREME_HEALTH_URL
ENV TRIREME_HEALTH_URL=http://127.0.0.1:8080/healthz
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["/usr/local/bin/trireme", "health"]
ENTRYPOINT ["/usr/local/bin/trireme"]
CMD ["--help"]
