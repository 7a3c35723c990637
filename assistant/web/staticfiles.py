"""Static files under hashed names, ES modules included."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class ModuleManifestStorage(ManifestStaticFilesStorage):
    """Rewrites ``import … from "./x.js"`` to hashed names: every file can be cached for ever."""

    support_js_module_import_aggregation = True
