"""At a centre of many sites: fetch the picture of each event from its site: centre.py SITES_FILE AMQP_URL DIRECTORY

The queue "events" has the events of all sites, and the broker has checked which site sent each (docs/fleet.md).
"""

import json
import signal
import sys
import tomllib
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pika

SITES = {site["name"]: site for site in tomllib.loads(Path(sys.argv[1]).read_text())["sites"]}


def fetch(site: dict[str, str], key: str) -> bytes:
    """The picture, from the API of the site that stores it."""
    headers = {"Authorization": f"Bearer {site['token']}"} if "token" in site else {}
    with urlopen(Request(f"{site['url']}/api/v1/frames/{quote(key, safe='')}", headers=headers), timeout=10) as answer:
        return answer.read()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[2])).channel()
for method, properties, body in channel.consume("events"):  # never ends
    name, found = properties.user_id, json.loads(body)
    for event in found if isinstance(found, list) else [found]:
        if event["event_type"] == "frame" and name in SITES:
            try:
                picture = fetch(SITES[name], event["redis_key"])
                (Path(sys.argv[3]) / f"{name}-{event['timestamp_nano']}.jpg").write_bytes(picture)
                print(f"{name} {event['camera_id']} {event['timestamp']}", flush=True)
            except URLError as error:  # 404: the frame has expired
                print(f"{name} {event['camera_id']}: {error}", flush=True)
    channel.basic_ack(method.delivery_tag)
