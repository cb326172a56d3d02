# swarmkeeper in an image from scratch: one static binary and the CA roots.
#
#   docker build -t swarmkeeper .     builds it from this source
#   make image                        packs a binary that cargo built outside (stage `prebuilt`)

FROM scratch AS prebuilt
COPY ca-certificates.crt /etc/ssl/certs/
COPY swarmkeeper /
ENTRYPOINT ["/swarmkeeper"]
CMD ["agent"]

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl-dev pkg-config
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin swarmkeeper && install -D target/*-linux-gnu/release/swarmkeeper /out/swarmkeeper

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/swarmkeeper /
ENTRYPOINT ["/swarmkeeper"]
CMD ["agent"]
