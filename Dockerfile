# Build, where Docker and a package index are at hand:
#     docker build --tag kosmos2 .
# PyTorch's usual wheel runs on processors and on NVIDIA GPUs. A smaller image, for processors alone:
#     docker build --tag kosmos2 --build-arg TORCH_INDEX=THE_INDEX_OF_PYTORCHS_CPU_WHEELS .
# Run; nothing is fetched at the start:
#     docker run --publish 127.0.0.1:8000:8000 kosmos2
#     docker run --publish 127.0.0.1:8000:8000 --gpus all --volume /path/to/weights:/model:ro \
#         --env KOSMOS2_API_KEYS=a-key kosmos2 serve --host 0.0.0.0 --model /model
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
ARG EXTRAS=serve
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The compiler is for the native kernels; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/kosmos2
ENV PATH=/opt/kosmos2/bin:${PATH}
WORKDIR /source
# PyTorch first and alone: it is large and changes rarely.
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY licenses licenses
COPY kosmos2 kosmos2
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && KOSMOS2_CACHE=/opt/kosmos2/cache kosmos2 native build

FROM python:${PYTHON}-slim
# The native kernels use its OpenMP.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 kosmos2
COPY --from=build /opt/kosmos2 /opt/kosmos2
# Weights come with the image, by a mounted folder, or not at all.
ENV PATH=/opt/kosmos2/bin:${PATH} \
    KOSMOS2_CACHE=/opt/kosmos2/cache \
    HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/kosmos2
EXPOSE 8000
# A server that goes down answers whom it has let in; docker stop --time must leave it the time.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["kosmos2"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
