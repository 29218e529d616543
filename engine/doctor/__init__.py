"""``edge-video doctor``: what was measured (``*_facts``), what it means (``*_checks``), put together (``examine``)."""
