"""``manage.py doctor``: what is wrong with this installation, and what to do."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from assistant.management.diagnosis import Finding, diagnose

_MARKS = {"ok": "ok", "warning": "note", "problem": "WRONG"}


class Command(BaseCommand):
    help = "Check everything the assistant depends on. Exits with 1 when something is wrong."
    # A broken installation must not keep the doctor from looking at it.
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *_args: Any, **options: Any) -> None:
        findings = []
        for finding in diagnose():
            findings.append(finding)
            if not options["json"]:
                self._show(finding)
        wrong = [finding for finding in findings if finding.state == "problem"]
        if options["json"]:
            report = {"ok": not wrong, "checks": [finding.as_dict() for finding in findings]}
            self.stdout.write(json.dumps(report, indent=1))
        else:
            self.stdout.write(f"\n{len(wrong)} wrong." if wrong else "\nNothing is wrong.")
        if wrong:
            sys.exit(1)

    def _show(self, finding: Finding) -> None:
        style = {"ok": self.style.SUCCESS, "warning": self.style.WARNING}.get(
            finding.state, self.style.ERROR
        )
        mark = style(f"{_MARKS[finding.state]:<6}")
        self.stdout.write(f"{mark} {finding.name:<15} {finding.detail}")
        if finding.advice:
            self.stdout.write(f"{'':<23}{finding.advice}")
