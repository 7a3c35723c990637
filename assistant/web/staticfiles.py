"""Static files under hashed names, ES modules included."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class ModuleManifestStorage(ManifestStaticFilesStorage):
    """Rewrites ``import … from "./x.js"`` to hashed names: every file can be cached for ever.

    Only in our own modules: Django's ``support_js_module_import_aggregation`` also rewrites what
    looks like an import in the comments of other packages, and fails there.
    """

    patterns = (
        *ManifestStaticFilesStorage.patterns,
        (
            "js/*.js",
            ManifestStaticFilesStorage._js_module_import_aggregation_patterns[1],  # type: ignore[attr-defined]  # not in the stubs
        ),
    )
