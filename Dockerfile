# gazepose in a container. CPU is the default; CUDA works where the NVIDIA container toolkit is installed.
#   docker build -t gazepose .
#   docker build -t gazepose --build-arg DEVICE=cuda .
#   docker run --rm -v "$PWD":/work -v gazepose-models:/models gazepose models
#   docker run --rm -v "$PWD":/work -v gazepose-models:/models gazepose watch visit.mp4 --out visit
FROM python:3.12-slim-bookworm

ARG DEVICE=cpu
ENV GAZEPOSE_MODELS=/models \
    OMP_WAIT_POLICY=PASSIVE \
    PIP_NO_CACHE_DIR=1

# The default Linux wheels of torch bring CUDA with them. PyTorch's own index has wheels without it; pip takes them because
# their version, such as 2.15.0+cpu, counts as higher.
WORKDIR /opt/gazepose
COPY requirements.txt constraints.txt ./
RUN case "$DEVICE" in \
      cpu) pip install -c constraints.txt -r requirements.txt --extra-index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install -c constraints.txt -r requirements.txt ;; \
      *) echo "error: DEVICE is $DEVICE -> use cpu or cuda" >&2; exit 1 ;; \
    esac

COPY pyproject.toml README.md LICENSE ./
# The package links to these two folders.
COPY accelerate_configs accelerate_configs
COPY launch/experiments launch/experiments
COPY gazepose gazepose
# A container writes as the user with number 1000, not as root. --user changes it.
RUN pip install -c constraints.txt '.[watch,parquet]' && \
    useradd --create-home --uid 1000 gazepose && mkdir -p /models /work && chmod 777 /models /work

USER 1000
WORKDIR /work
ENTRYPOINT ["gazepose"]
CMD ["--help"]
