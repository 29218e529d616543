"""At a centre of many sites: fetch each event's picture from its site: centre.py SITES_FILE AMQP_URL DIRECTORY
The queue "events" has the events of all sites, and the broker has checked which site sent each (docs/fleet.md)."""

import json
import signal
import sys
import tomllib
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pika

LIST, OUT = Path(sys.argv[1]), Path(sys.argv[3])
SITES = {site["name"]: site for site in tomllib.loads(LIST.read_text())["sites"]}


def fetch(site: dict[str, str], key: str) -> bytes:
    """The picture, from the API of the site that stores it."""
    token = (LIST.parent / site["token_file"]).read_text().strip() if "token_file" in site else site.get("token", "")
    where, rights = f"{site['url']}/api/v1/frames/{quote(key, safe='')}", {"Authorization": f"Bearer {token}"}
    with urlopen(Request(where, headers=rights), timeout=10) as answer:
        return answer.read()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[2])).channel()
channel.basic_qos(prefetch_count=100)
for method, properties, body in channel.consume("events"):  # never ends
    name, found = properties.user_id, json.loads(body)
    for event in found if isinstance(found, list) else [found]:
        if event["event_type"] == "frame" and "url" in SITES.get(name, {}):
            try:
                (OUT / f"{name}-{event['timestamp_nano']}.jpg").write_bytes(fetch(SITES[name], event["redis_key"]))
                print(f"{name} {event['camera_id']} {event['timestamp']}", flush=True)
            except (OSError, HTTPException) as error:  # 404: the frame has expired
                print(f"{name} {event['camera_id']}: {error}", flush=True)
    channel.basic_ack(method.delivery_tag)
