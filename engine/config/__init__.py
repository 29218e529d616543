"""A site's configuration.

1. ``structs``: the frozen struct that the rest of the engine gets; ``sections``, ``alerts``: its parts.
2. ``names``: keys of the file: the Go edition's, unknown ones, and the place of an error.
3. ``tls``: what the ``tls_*`` keys mean.
4. ``servers``, ``rules``: what a file must satisfy beyond the types of its fields.
5. ``loading``: makes a ``Config`` from a file and the environment.
6. ``memory``: how much Redis memory a site needs.
"""

from engine.config.alerts import AlertsSection
from engine.config.loading import ENVIRONMENT, SECTIONS, from_document, given_by, load, parse, read_toml, secrets_of
from engine.config.sections import (
    JPEG_BYTES_PER_PIXEL,
    AmqpSection,
    Camera,
    CameraDefaults,
    MetadataSection,
    PublisherSection,
    RedisSection,
    RingSection,
    Secret,
    SiteSection,
    Url,
    VideoSection,
    WebSection,
    WriterSection,
)
from engine.config.structs import Config, default_run_directory

__all__ = [
    "ENVIRONMENT",
    "JPEG_BYTES_PER_PIXEL",
    "SECTIONS",
    "AlertsSection",
    "AmqpSection",
    "Camera",
    "CameraDefaults",
    "Config",
    "MetadataSection",
    "PublisherSection",
    "RedisSection",
    "RingSection",
    "Secret",
    "SiteSection",
    "Url",
    "VideoSection",
    "WebSection",
    "WriterSection",
    "default_run_directory",
    "from_document",
    "given_by",
    "load",
    "parse",
    "read_toml",
    "secrets_of",
]
