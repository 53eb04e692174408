# The command line in a container, without root. Runs and data are in the folder /work, to be mounted:
#
#   docker build --tag openjepa .
#   docker run --rm --volume "$PWD:/work" openjepa train t_jepa data=corpus.jsonl --out runs/mine
#
# For a GPU, another base and PyTorch's CUDA build (needs the NVIDIA container toolkit on the host):
#
#   docker build --tag openjepa:cuda --build-arg BASE=nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://pypi.org/simple .
#   docker run --rm --gpus all --volume "$PWD:/work" openjepa:cuda train t_jepa data=corpus.jsonl
#
# A mounted folder must be writable for the user: add --user "$(id -u):$(id -g)" if you are not user 1001.
ARG BASE=python:3.12-slim

FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m pip install --no-cache-dir build
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m build --wheel --outdir /wheels

FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=files,text,export,track
# images of CUDA have no Python
RUN if ! command -v python3 > /dev/null; then \
      apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && \
      rm -rf /var/lib/apt/lists/*; \
    fi
RUN python3 -m venv /opt/openjepa
ENV PATH=/opt/openjepa/bin:$PATH
COPY constraints.txt /opt/openjepa/constraints.txt
RUN pip install --no-cache-dir --constraint /opt/openjepa/constraints.txt --index-url ${TORCH_INDEX} \
      --extra-index-url https://pypi.org/simple torch
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /opt/openjepa/constraints.txt "$(echo /wheels/*.whl)[${EXTRAS}]"

RUN useradd --create-home --uid 1001 openjepa && mkdir /work && chown openjepa /work
USER openjepa
ENV HF_HOME=/home/openjepa/.cache/huggingface \
    OPENJEPA_CACHE=/home/openjepa/.cache/openjepa
WORKDIR /work
ENTRYPOINT ["openjepa"]
CMD ["--help"]
