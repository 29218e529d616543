"""``python -m engine`` is ``edge-video``."""

from engine.cli.main import main

main()
