"""The sources of frames.

1. ``choose``: selects a camera's source.
2. ``source``: the interface of every source.
3. ``video``: streams and files that FFmpeg opens. ``stream`` reads packets, ``decoder`` decodes them, ``pictures``
   gives the pictures their order and time stamps, ``decode_mode`` chooses which of them become JPEGs.
4. ``device``: V4L2 devices. ``pattern``: test patterns.
5. ``jpeg_gate``: passes a camera's own JPEGs. ``jpeg_encoder``: makes JPEGs of pictures. ``pace``: paces files and
   test patterns.
6. ``check``: finds out why a camera did not open; ``camera_request`` sends the request. ``paths``: the same for files
   and devices.
7. ``failures``: decides which failures of a camera are logged.
"""
