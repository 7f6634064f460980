"""Keras files of which it is certain, before Keras is imported, that it cannot or must not load them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exporter.errors import ExportError
from exporter.readers import Unexplained, unloaded_note
from exporter.readers.described import DescribedModel
from exporter.records import Job
from exporter.sources.keras_models import untrusted


def with_refusals(
    job: Job, text: Callable[[], str], read: Callable[[bool], DescribedModel], *, has_modules: bool
) -> DescribedModel:
    """What `read` finds, or what it finds when it is lenient, where Keras would refuse the config anyway.

    `text` gives the config. `has_modules` says whether it names the packages of classes, as archives do. Raises
    Unexplained where Keras may know more.
    """
    try:
        return read(False)
    except Unexplained:
        error = None if job.trust_code or job.reading.custom_objects else _refusal(text(), job.source, has_modules)
        if error is None:
            raise
        return replace(read(True), notes=(unloaded_note(error),))


def _refusal(text: str, where: str, has_modules: bool) -> ExportError | None:
    try:
        config = untrusted.parse_config(text, where)
        untrusted.refuse_code(config, where)
        if has_modules:
            untrusted.refuse_foreign_classes(config, where)
    except ExportError as error:
        return error
    return None
