"""The read side: stored frames, their times, and the events that announce them.

A query passes through these modules, from the top down: ``store`` and ``async_store`` (with ``store_base``),
``iterators``, ``queries``, ``ranges`` and ``tail`` (with ``payloads`` and ``tenant``), ``transport`` and
``async_transport``. ``times``, ``frame`` and ``stats`` define what a query takes and returns.

An event passes through ``consumer``, ``subscription`` (with ``topology``), ``dispatch`` (with ``delivery`` and
``signals``) and ``fetch``.

``picture`` decodes a frame, ``film`` makes an MP4 of many frames, ``chart`` draws their rate.
"""
