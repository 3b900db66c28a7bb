# An image of `ams serve`, and of every other command on one host; deploy/Dockerfile has MPI, for trainings on many:
#
#   docker build --file deploy/serve.Dockerfile --tag ams:0.2.0 .          # from the root of the repository
#   docker run --rm --publish 8600:8600 --volume "$PWD/models:/models" ams:0.2.0 serve /models --bind 0.0.0.0:8600
#
# CI checks this file with hadolint, and builds it on stand-ins of both base images, which are out of its reach (.ci/deploy.py).

# Both stages are of the same Debian release: the program needs its C library, and nothing else.
FROM rust:1.95-bookworm AS build
WORKDIR /ams
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN cargo build --profile dist --locked --features full

# No shell, no package manager: the C library, libgcc, certificates and time zones.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /ams/target/dist/ams /usr/local/bin/ams
# As a number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /data
EXPOSE 8600 8601
ENTRYPOINT ["/usr/local/bin/ams"]
CMD ["--help"]
