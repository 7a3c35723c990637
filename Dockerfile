# One image for web, workers, beat and the embedding server; docker-compose.yml says which is which.
# Nothing is fetched when it runs: the default embedding weights come with the packages.
FROM python:3.11-slim-bookworm AS build
# Where the CPU build of torch is served; empty: the default index, whose build may bring CUDA.
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' requirements.lock)" \
    && pip install -r requirements.lock

FROM python:3.11-slim-bookworm
# Reads scans and pictures; more languages: tesseract-ocr-deu and its like, with OCR_LANGUAGES.
ARG TESSERACT_LANGUAGES="tesseract-ocr-eng tesseract-ocr-deu"
RUN apt-get update \
    && apt-get install --no-install-recommends -y tesseract-ocr tesseract-ocr-osd ${TESSERACT_LANGUAGES} \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin assistant \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY manage.py ./
COPY templates templates
COPY inference inference
COPY ingestion ingestion
COPY assistant assistant
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data \
    PORT=8000 \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    DO_NOT_TRACK=1 \
    SCARF_NO_ANALYTICS=1 \
    UNSTRUCTURED_DISABLE_NOTICE=1 \
    TOKENIZERS_PARALLELISM=false
RUN python -m compileall -q assistant ingestion inference
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
# One process: what several count is added up in a directory that docker-compose.yml gives them.
CMD ["python", "-m", "uvicorn", "assistant.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", "--timeout-worker-healthcheck", "15", "--timeout-graceful-shutdown", "10", "--no-server-header", "--no-access-log"]
