"""Write pictures of a camera's video to JPEG files: pictures_of_video.py SITE_FILE CAMERA START FPS DIRECTORY

START is an offset from now, such as -1m, or RFC 3339. FPS may be less than 1: 0.1 is a picture every ten seconds, and
only what these need is decoded.
"""

import sys
from pathlib import Path

import cv2

from engine import FrameStore


def main() -> None:
    site_file, camera, start, fps, directory = sys.argv[1:]
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with FrameStore.from_site(site_file) as store, store.pictures(camera, start, fps=float(fps)) as pictures:
        count = 0
        for picture in pictures:
            cv2.imwrite(str(folder / f"{picture.unix_nano}.jpg"), picture.image)
            count += 1
        print(f"{count} pictures in {folder}; {pictures.missing + pictures.skipped} packets were lost")


main()
