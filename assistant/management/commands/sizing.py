from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from inference.serving.sizing import CARDS, MODELS, Demand, plan


class Command(BaseCommand):
    help = "How many GPUs so many people need, with every assumption printed."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--users", type=int, required=True, help="people with an account")
        parser.add_argument("--model", choices=sorted(MODELS), default="gpt-oss-20b")
        parser.add_argument("--card", choices=sorted(CARDS), help="only this one")
        for field in fields(Demand)[1:]:
            kind = int if isinstance(field.default, int) else float
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, type=kind, default=field.default, help="%(default)s")
        parser.add_argument("--decode", type=float, help="tokens a second a card writes, measured")
        parser.add_argument("--prefill", type=float, help="tokens a second a card reads, measured")

    def handle(self, *args: Any, **options: Any) -> None:
        demand = Demand(**{field.name: options[field.name] for field in fields(Demand)})
        model = MODELS[options["model"]]
        if demand.users < 1 or demand.tokens_per_second <= 0:
            raise CommandError("--users and --tokens-per-second must be above 0.")
        write = self.stdout.write
        write(f"{demand.users} users, {model.name}")
        for field in fields(Demand)[1:]:
            write(f"  {field.name.replace('_', ' '):<20}{getattr(demand, field.name):>10g}")
        write("In the busiest minutes")
        write(f"  answers a second    {demand.per_second:>10.2f}")
        write(f"  tokens written a s  {demand.written:>10.0f}")
        write(f"  tokens read a s     {demand.read:>10.0f}")
        write(f"  streams at once     {demand.streams:>10.1f}")
        write("Cards")
        for name in [options["card"]] if options["card"] else CARDS:
            write(f"  {name:<6} {self._line(demand, model.name, name, options)}")
        write("Planning figures: measure with `vllm bench serve` and pass --decode and --prefill.")

    def _line(self, demand: Demand, model: str, card: str, options: dict[str, Any]) -> str:
        try:
            found = plan(
                demand,
                MODELS[model],
                CARDS[card],
                decode=options["decode"],
                prefill=options["prefill"],
            )
        except ValueError as error:
            return str(error)
        shape = f"{found.replicas} x {found.per_replica}" if found.cards > 1 else "one"
        return (
            f"{found.cards} ({shape}): {found.reason}; room for {found.streams_per_replica} streams"
            " in each server"
        )
