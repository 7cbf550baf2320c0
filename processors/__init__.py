"""From a row of data to a `vlmpack.Sample`: row formats, chat templates, images."""

from vlmpack.processors.chat import TemplateError
from vlmpack.processors.images import ImageError
from vlmpack.processors.preference import PreferenceProcessor, PreferenceProcessorConfig
from vlmpack.processors.rows import RowError
from vlmpack.processors.sources import SourceError, load_rows

__all__ = [
    "ImageError",
    "PreferenceProcessor",
    "PreferenceProcessorConfig",
    "RowError",
    "SourceError",
    "TemplateError",
    "load_rows",
]
