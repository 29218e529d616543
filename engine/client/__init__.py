"""The read side: stored frames, their times, and the events that announce them.

A query, downward: ``store`` and ``async_store`` (with ``store_base``), ``iterators``, ``queries``, ``ranges`` and
``tail`` (with ``payloads`` and ``tenant``), ``transport`` and ``async_transport``. What a query takes and returns:
``times``, ``frame``, ``stats``.

An event: ``consumer``, ``subscription`` (with ``topology``), ``dispatch`` (with ``delivery`` and ``signals``),
``fetch``.

With a frame: ``picture`` decodes it, ``film`` makes an MP4 of many, ``chart`` draws their rate.
"""
