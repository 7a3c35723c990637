"""Django settings, and the only place that knows a setting's name in the environment.

Every variable is described in docs/configuration.md; a test compares the two.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import django_stubs_ext
import psycopg.conninfo
from django.core.exceptions import ImproperlyConfigured

from assistant.env import load_env

# Lets forms, admins and managers name their model as a type argument at run time too.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = load_env(BASE_DIR)


def _text(name: str, default: str = "") -> str:
    return ENV.get(name, "").strip() or default


def _int(name: str, default: int) -> int:
    value = _text(name)
    try:
        return int(value) if value else default
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from error


def _flag(name: str, *, default: bool = False) -> bool:
    value = _text(name).lower()
    return default if not value else value in {"1", "true", "yes", "on"}


def _list(name: str) -> list[str]:
    return [part.strip() for part in _text(name).split(",") if part.strip()]


def _json(name: str, kind: type[Any]) -> Any:
    """The JSON value of a variable, of ``kind``; an empty one when it is not set."""
    try:
        value = json.loads(_text(name) or json.dumps(kind()))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not JSON: {error}.") from error
    if not isinstance(value, kind):
        raise ImproperlyConfigured(f"{name} must be a JSON {kind.__name__}.")
    return value


# --- Where things are -------------------------------------------------------------------------

# Originals, embedded database and broker, logs and generated secrets.
DATA_DIR = Path(_text("DATA_DIR", str(BASE_DIR / ".data"))).expanduser().resolve()
PORT = _int("PORT", 8000)


def _running_services() -> dict[str, Any]:
    """Addresses that a running ``manage.py up`` wrote down, so that other commands find it."""
    try:
        services: dict[str, Any] = json.loads((DATA_DIR / "run" / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return services


SERVICES = _running_services()

# --- Security ---------------------------------------------------------------------------------

DEBUG = False


def _secret_key() -> str:
    if configured := _text("SECRET_KEY"):
        if len(configured) < 32:
            raise ImproperlyConfigured("SECRET_KEY must have at least 32 characters.")
        return configured
    try:
        return (DATA_DIR / "secrets" / "secret-key").read_text().strip()
    except OSError:
        raise ImproperlyConfigured(
            "No SECRET_KEY: set it, or start the embedded services with `make run`,"
            " which makes one."
        ) from None


SECRET_KEY = _secret_key()
ALLOWED_HOSTS = _list("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]", socket.gethostname()]
if "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured("ALLOWED_HOSTS must name the hosts; `*` would accept forged ones.")
CSRF_TRUSTED_ORIGINS = _list("CSRF_TRUSTED_ORIGINS")
# Behind TLS: secure cookies and HSTS. The proxy must set X-Forwarded-Proto and drop a client's own.
HTTPS = _flag("HTTPS")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_NAME = "__Host-session" if HTTPS else "session"
CSRF_COOKIE_NAME = "__Host-csrf" if HTTPS else "csrf"
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 3600
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "object-src": ["'none'"],
    }
}
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_USER_MODEL = "users.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_USERNAME_FORM_FIELD = "username"
AXES_VERBOSE = False
# The first administrator, made by `manage.py ensure_admin` when there is no superuser yet.
ADMIN_EMAIL = _text("ADMIN_EMAIL", "admin@example.com")
ADMIN_PASSWORD = _text("ADMIN_PASSWORD")

# --- Application ------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "axes",
    "django_htmx",
    "django_prometheus",
    "rest_framework",
    "drf_spectacular",
    "assistant",
    "assistant.users",
    "assistant.audit",
    "assistant.permissions",
    "assistant.documents",
    "assistant.retrieval",
    "ingestion",
    "assistant.chat",
    "assistant.web",
    "assistant.api",
]
MIDDLEWARE = [
    # Django's own, django-csp's and django-prometheus's, without a thread for each step.
    "assistant.web.middleware.Metrics",
    "assistant.web.middleware.Security",
    "assistant.web.middleware.ContentSecurityPolicy",
    "assistant.web.middleware.Sessions",
    "assistant.web.middleware.Common",
    "assistant.web.middleware.Csrf",
    "assistant.web.middleware.Authentication",
    "assistant.web.middleware.Messages",
    "assistant.web.middleware.FrameOptions",
    "django_htmx.middleware.HtmxMiddleware",
    "assistant.web.middleware.NoStoreMiddleware",
    "axes.middleware.AxesMiddleware",
    "assistant.web.middleware.ViewMetrics",
]
ROOT_URLCONF = "assistant.urls"
ASGI_APPLICATION = "assistant.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "assistant.web.context.site",
            ],
        },
    },
]
SITE_NAME = _text("SITE_NAME", "Knowledge Assistant")
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "assistant" / "static"]
STATIC_ROOT = DATA_DIR / "static"
LANGUAGE_CODE = "en"
TIME_ZONE = _text("TIME_ZONE", "UTC")
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Database and broker ----------------------------------------------------------------------

DATABASE_URL = _text("DATABASE_URL") or SERVICES.get(
    "database_url", "postgresql://assistant@127.0.0.1:1/assistant"
)
# Connections per process; 0 switches the pool off.
DATABASE_POOL_SIZE = _int("DATABASE_POOL_SIZE", 20)


def _database() -> dict[str, Any]:
    parts = {k: v for k, v in psycopg.conninfo.conninfo_to_dict(DATABASE_URL).items() if v}
    options: dict[str, Any] = {
        key: value
        for key, value in parts.items()
        if key not in {"dbname", "user", "password", "host", "port"}
    }
    options.setdefault("connect_timeout", 5)
    if DATABASE_POOL_SIZE:
        # An attempt to connect soon makes room for the next: the pool's own pause between attempts
        # doubles, and would keep the site away for minutes after a short restart of the database.
        options["pool"] = {
            "min_size": 0,
            "max_size": DATABASE_POOL_SIZE,
            "timeout": 10,
            "reconnect_timeout": 2,
        }
        # Behind PgBouncer, which switches the pool off, nothing is prepared.
        options["prepare_threshold"] = 5
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.get("dbname", "assistant"),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": str(parts.get("port", "")),
        # Given back after every call (assistant.database): kept, it would be one for each thread.
        "CONN_MAX_AGE": 0,
        # The pool holds connections that a restart of the database has ended.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


DATABASES = {"default": _database()}
# What to do when PostgreSQL's row-level security does not stand behind searches: `require` starts
# nothing and reads nothing, `warn` says so in the log and in `manage.py doctor` and goes on.
ROW_SECURITY = _text("ROW_SECURITY", "require")
if ROW_SECURITY not in {"require", "warn"}:
    raise ImproperlyConfigured("ROW_SECURITY must be `require` or `warn`.")
REDIS_URL = _text("REDIS_URL") or SERVICES.get("redis_url", "redis://127.0.0.1:1/0")
# --- Ingestion --------------------------------------------------------------------------------

MEDIA_ROOT = DATA_DIR / "media"
# The seam for django-storages: S3 or Azure become another BACKEND here.
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": MEDIA_ROOT, "file_permissions_mode": 0o640},
    },
    "staticfiles": {
        "BACKEND": "assistant.web.staticfiles.ModuleManifestStorage",
    },
}
MAX_UPLOAD_MB = _int("MAX_UPLOAD_MB", 100)
# Form fields; files go to disk piece by piece and are bounded by MAX_UPLOAD_MB.
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FILES = 1000
FILE_UPLOAD_HANDLERS = [
    "assistant.documents.uploads.LimitedUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
# On the same disk as the originals; the system's own before the data directory is made.
TEMP_DIR = DATA_DIR / "tmp"
FILE_UPLOAD_TEMP_DIR = TEMP_DIR if TEMP_DIR.is_dir() else None
PARSE_TIMEOUT_SECONDS = _int("PARSE_TIMEOUT_SECONDS", 300)
PARSE_MEMORY_MB = _int("PARSE_MEMORY_MB", 2048)
MAX_PAGES = _int("MAX_PAGES", 5000)
# Tesseract's names of languages, joined by "+"; empty switches text recognition off.
OCR_LANGUAGES = _text("OCR_LANGUAGES", "eng")
OCR_MAX_PAGES = _int("OCR_MAX_PAGES", 500)
OCR_TIMEOUT_SECONDS = _int("OCR_TIMEOUT_SECONDS", 3600)
MAX_TEXT_CHARACTERS = _int("MAX_TEXT_CHARACTERS", 20_000_000)
# A job whose worker has not been heard of for this long is taken over by another worker.
JOB_LEASE_SECONDS = _int("JOB_LEASE_SECONDS", 60)
JOB_MAX_ATTEMPTS = _int("JOB_MAX_ATTEMPTS", 3)

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
# PostgreSQL holds the truth and the sweep repairs: a message that comes back would only loop.
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "ingestion.tasks.parse_version": {"queue": "parse"},
    "ingestion.tasks.embed_version": {"queue": "embed"},
}
# A message whose worker died comes back after this many seconds, as a no-op: the sweep was faster.
CELERY_VISIBILITY_TIMEOUT = 3600
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": CELERY_VISIBILITY_TIMEOUT,
    # A broker that falls silent must not hold an upload or a worker for ever (celery #8030, #9054).
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
    # Of one publish. The outbox tries again; a person who uploads does not wait for the broker.
    "max_retries": 0,
}
# What consumers do when they lose it: try for ever, every few seconds.
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# Every worker has a queue of its own, on which it proves to itself that it consumes.
CELERY_WORKER_DIRECT = True
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "relay-outbox": {"task": "ingestion.tasks.relay_outbox", "schedule": 3.0},
    "sweep-jobs": {"task": "ingestion.tasks.sweep_jobs", "schedule": 10.0},
    "continue-reembedding": {
        "task": "ingestion.tasks.continue_reembedding",
        "schedule": 5.0,
        "options": {"expires": 10},
    },
    "renew-analysis": {
        "task": "ingestion.tasks.renew_analysis",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "mark-interrupted-answers": {"task": "assistant.chat.tasks.mark_interrupted", "schedule": 5.0},
    "forget-old-prompts": {
        "task": "assistant.chat.tasks.forget_old_prompts",
        "schedule": 3600.0,
    },
    "forget-deleted-quotes": {
        "task": "assistant.chat.tasks.forget_deleted_quotes",
        "schedule": 60.0,
    },
    "purge-deleted-originals": {"task": "ingestion.tasks.purge_originals", "schedule": 60.0},
    "remove-stray-originals": {"task": "ingestion.tasks.remove_strays", "schedule": 60.0},
}

# --- Models -----------------------------------------------------------------------------------

EMBEDDING_MODEL = _text("EMBEDDING_MODEL", "all-MiniLM-L6-v2")
EMBEDDING_BASE_URL = _text("EMBEDDING_BASE_URL") or SERVICES.get(
    "embedding_url", "http://127.0.0.1:1/v1"
)
EMBEDDING_API_KEY = _text("EMBEDDING_API_KEY") or SERVICES.get("embedding_api_key", "")
# Unset: answers are quoted sentences, and the page says how to connect a model. Several addresses,
# separated by commas, are servers of the same model; keys are one for all, or one for each.
LLM_BASE_URL = _text("LLM_BASE_URL")
LLM_MODEL = _text("LLM_MODEL")
LLM_API_KEY = _text("LLM_API_KEY")
# For what is short and whose style nobody waits for: rewriting questions, titles, follow-ups.
LLM_SMALL_MODEL = _text("LLM_SMALL_MODEL")
LLM_SMALL_BASE_URL = _text("LLM_SMALL_BASE_URL")
LLM_SMALL_API_KEY = _text("LLM_SMALL_API_KEY")
# Further models that people may choose: [{"name", "model", "base_url"?, "api_key"?, "groups"?}].
LLM_MODELS = _json("LLM_MODELS", list)
LLM_EFFORT = _text("LLM_EFFORT", "medium")
# vLLM keeps prefix caches of readers apart by it; other servers may refuse the field. Unset: where
# the server says that it is vLLM.
LLM_CACHE_SALT = _flag("LLM_CACHE_SALT") if _text("LLM_CACHE_SALT") else None
LLM_MAX_TOKENS = _int("LLM_MAX_TOKENS", 2048)
LLM_FIRST_TOKEN_TIMEOUT_SECONDS = _int("LLM_FIRST_TOKEN_TIMEOUT_SECONDS", 30)
LLM_INTER_TOKEN_TIMEOUT_SECONDS = _int("LLM_INTER_TOKEN_TIMEOUT_SECONDS", 15)
# Answers written at once by all web processes together; more wait in line, and beyond that are
# asked to come again. What the servers can bear: their `--max-num-seqs`, added up.
LLM_MAX_RUNNING = _int("LLM_MAX_RUNNING", 512)
LLM_MAX_WAITING = _int("LLM_MAX_WAITING", 200)
LLM_MAX_WAIT_SECONDS = _int("LLM_MAX_WAIT_SECONDS", 120)
# {"user" | "token" | "group:NAME": {"concurrent"?, "requests_per_minute"?, "tokens_per_hour"?}}
LLM_LIMITS: dict[str, dict[str, int]] = _json("LLM_LIMITS", dict)


def _check_limits() -> None:
    """A misspelt limit would be none."""
    kinds = {"concurrent", "requests_per_minute", "tokens_per_hour"}
    for whose, limits in LLM_LIMITS.items():
        if whose not in {"user", "token"} and not whose.startswith("group:"):
            raise ImproperlyConfigured(f"LLM_LIMITS: {whose!r} is not user, token or group:NAME.")
        if not isinstance(limits, dict) or not set(limits) <= kinds:
            raise ImproperlyConfigured(f"LLM_LIMITS: {whose} takes {', '.join(sorted(kinds))}.")
        if not all(isinstance(number, int) and number >= 0 for number in limits.values()):
            raise ImproperlyConfigured(f"LLM_LIMITS: the limits of {whose} are whole numbers.")


_check_limits()
RERANKER_BASE_URL = _text("RERANKER_BASE_URL")
RERANKER_MODEL = _text("RERANKER_MODEL")
RERANKER_API_KEY = _text("RERANKER_API_KEY")
# Nobody waits longer for a better order; the results then come in the order of the search.
RERANKER_TIMEOUT_SECONDS = _int("RERANKER_TIMEOUT_SECONDS", 2)

# --- Retrieval and answers --------------------------------------------------------------------

MAX_QUESTION_CHARACTERS = _int("MAX_QUESTION_CHARACTERS", 4000)
# Tokens of passages that go into one prompt.
SOURCE_TOKEN_BUDGET = _int("SOURCE_TOKEN_BUDGET", 3000)
# What an answer says when nothing was found; "{documents}" becomes for example "12 documents".
NOT_FOUND_TEXT = _text(
    "NOT_FOUND_TEXT", "I found nothing about this in the {documents} that you can read."
)
# Up to three questions that could follow, proposed by the small model after an answer.
SUGGEST_FOLLOW_UPS = _flag("SUGGEST_FOLLOW_UPS", default=True)
# What every answer keeps to besides the product's own rules, such as tone and house terms.
ANSWER_INSTRUCTIONS = _text("ANSWER_INSTRUCTIONS")
# Of the site's and of each collection's instructions; and of all collections' in one prompt.
INSTRUCTIONS_MAX_TOKENS = _int("INSTRUCTIONS_MAX_TOKENS", 500)
INSTRUCTIONS_TOKEN_BUDGET = _int("INSTRUCTIONS_TOKEN_BUDGET", 1500)
# Files that can be attached to one conversation, and how long its questions wait for them.
MAX_ATTACHMENTS = _int("MAX_ATTACHMENTS", 10)
ATTACHMENT_WAIT_SECONDS = _int("ATTACHMENT_WAIT_SECONDS", 60)
# Days that the text of prompts is kept with answers, for managers; 0: only their digests.
PROMPT_RETENTION_DAYS = _int("PROMPT_RETENTION_DAYS", 30)
ANSWER_EVENTS_TTL_SECONDS = _int("ANSWER_EVENTS_TTL_SECONDS", 3600)
# Silence on a stream before a comment line shows proxies that it lives.
HEARTBEAT_SECONDS = _int("HEARTBEAT_SECONDS", 10)
ANSWER_DEADLINE_SECONDS = _int("ANSWER_DEADLINE_SECONDS", 300)

# --- API --------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "assistant.api.authentication.TokenAuthentication",
        "assistant.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["assistant.api.renderers.FastJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "assistant.api.problems.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Knowledge Assistant",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
}
# Who may read /metrics besides a superuser: this bearer token, when set.
METRICS_TOKEN = _text("METRICS_TOKEN")

# --- Logs -------------------------------------------------------------------------------------

LOG_LEVEL = _text("LOG_LEVEL", "INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "assistant.logs.JsonFormatter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        # A line for every message, several a second.
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
