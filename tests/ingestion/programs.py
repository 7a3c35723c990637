"""Programs that some tests need and some machines lack."""

from __future__ import annotations

import shutil

import pytest

needs_tesseract = pytest.mark.skipif(
    shutil.which("tesseract") is None, reason="Tesseract is not installed (tesseract-ocr)"
)
