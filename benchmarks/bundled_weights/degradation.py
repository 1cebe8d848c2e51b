"""Make clean rendered pictures look like what networks meet: small, blurred, noisy, compressed."""

import cv2
import numpy as np
from jaxtyping import UInt8


def degrade(
    picture: UInt8[np.ndarray, "height width 3"],
    rng: np.random.Generator,
    *,
    smallest: float = 0.2,
    strength: float = 1.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return a copy with random loss of size, blur, light change, noise and JPEG blocks.

    Args:
        picture: RGB picture.
        rng: Source of randomness.
        smallest: Smallest share of the size to which it is reduced and enlarged again.
        strength: Chance factor of each loss, 1 for about a half each.
    """
    height, width = picture.shape[:2]
    if rng.random() < 0.7 * strength:
        share = float(np.exp(rng.uniform(np.log(smallest), 0.0)))
        size = (max(int(width * share), 4), max(int(height * share), 4))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        way = cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
        picture = cv2.resize(small, (width, height), interpolation=way)
    if rng.random() < 0.3 * strength:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.0)))
    if rng.random() < 0.7 * strength:
        gain, offset = rng.uniform(0.65, 1.2), rng.uniform(-20, 20)
        tint = rng.uniform(0.94, 1.06, 3)
        lit = picture.astype(np.float32) * (gain * tint).astype(np.float32) + np.float32(offset)
        picture = np.clip(lit, 0, 255).astype(np.uint8)
    if rng.random() < 0.4 * strength:
        # Coarse noise looks like the errors of a latent codec, fine noise like a sensor.
        cell = int(rng.choice([1, 2, 8]))
        shape = (-(-height // cell), -(-width // cell), 3)
        noise = rng.normal(0, rng.uniform(1, 12 if cell < 8 else 8), shape).astype(np.float32)
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = np.clip(picture.astype(np.float32) + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3 * strength:
        quality = int(rng.integers(25, 90))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return picture
