"""Augmentation does what the recipe's words say: the maps by their geometry, the pictures by SciPy's resampling."""

import math

import keras
import numpy as np
import pytest
from scipy import ndimage

from pipeline import augment, backend
from pipeline.recipe import Recipe

MIDDLE = 23.5  # of 48 pixels
RAMP = np.arange(48, dtype="float32")
EVERYTHING = {"rotation": 30.0, "shift": 0.2, "zoom": 0.3, "flip": True}


def recipe(**ranges: float) -> Recipe:
    """A recipe that augments by `ranges` alone; what augmentation does not read is left out."""
    return Recipe.model_construct(**({"rotation": 0.0, "shift": 0.0, "zoom": 0.0, "flip": False} | ranges))


def maps(count: int, seed: int = 1, **ranges: float) -> np.ndarray:
    """`count` maps as matrices [count, 2, 3]: input (x, y) = matrix @ output (x, y, 1)."""
    drawn = augment.transforms(count, recipe(**ranges), keras.random.SeedGenerator(seed))
    rows = keras.ops.convert_to_numpy(drawn)
    assert rows.shape == (count, 8)
    assert rows.dtype == "float32"
    assert (rows[:, 6:] == 0).all(), "no perspective"
    return rows[:, :6].reshape(count, 2, 3).astype("float64")


def vary(pictures: np.ndarray, seed: int = 1, **ranges: float) -> np.ndarray:
    return keras.ops.convert_to_numpy(augment.vary(pictures, recipe(**ranges), keras.random.SeedGenerator(seed)))


def parts(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """What maps are composed of: angle (degrees), zoom and mirroring, and where the middle goes."""
    (a0, a1, _), (b0, b1, _) = matrices.transpose(1, 2, 0)
    mirrored = a0 * b1 - a1 * b0 < 0
    angle = np.degrees(np.arctan2(-a1, b1))
    return {
        "angle": angle,
        "zoom_x": np.hypot(a0, b0),
        "zoom_y": np.hypot(a1, b1),
        "mirrored": mirrored,
        "shift_x": (matrices @ [MIDDLE, MIDDLE, 1])[:, 0] - MIDDLE,
        "shift_y": (matrices @ [MIDDLE, MIDDLE, 1])[:, 1] - MIDDLE,
    }


def composed(angle: float, zoom_x: float, zoom_y: float, mirrored: bool, shift_x: float, shift_y: float) -> np.ndarray:
    """The map built from its parts as a product of matrices, right to left as a pixel meets them."""
    to_middle = np.array([[1, 0, -MIDDLE], [0, 1, -MIDDLE], [0, 0, 1]])
    mirror = np.diag([-1.0 if mirrored else 1.0, 1, 1])
    zoom = np.diag([zoom_x, zoom_y, 1])
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    shift_back = np.array([[1, 0, MIDDLE + shift_x], [0, 1, MIDDLE + shift_y], [0, 0, 1]])
    return (shift_back @ rotation @ zoom @ mirror @ to_middle)[:2]


@pytest.fixture
def pictures() -> np.ndarray:
    """32 lopsided pictures, float32 [32, 48, 48, 1]."""
    return np.random.default_rng(0).integers(0, 256, (32, 48, 48, 1)).astype("float32")


def test_without_ranges_pictures_stay_what_they_are(pictures: np.ndarray) -> None:
    assert (vary(pictures) == pictures).all()


def test_without_ranges_every_map_is_the_identity() -> None:
    assert (maps(5) == [[1, 0, 0], [0, 1, 0]]).all()


@pytest.mark.parametrize(
    "ranges", [{"rotation": 40.0}, {"zoom": 0.3}, {"shift": 0.2}, {"flip": True}, EVERYTHING], ids=str
)
def test_maps_are_mirroring_then_zoom_then_rotation_about_the_middle_then_shift(ranges: dict[str, float]) -> None:
    found = maps(200, **ranges)
    each = parts(found)
    again = [composed(*(each[part][i] for part in each)) for i in range(len(found))]
    np.testing.assert_allclose(found, again, atol=1e-4)


@pytest.mark.parametrize(
    ("ranges", "part", "low", "high"),
    [
        ({"rotation": 20.0}, "angle", -20, 20),
        ({"rotation": 180.0}, "angle", -180, 180),
        ({"zoom": 0.1}, "zoom_x", 0.9, 1.1),
        ({"zoom": 0.1}, "zoom_y", 0.9, 1.1),
        ({"shift": 0.1}, "shift_x", -4.8, 4.8),
        ({"shift": 0.1}, "shift_y", -4.8, 4.8),
        (EVERYTHING, "angle", -30, 30),
        (EVERYTHING, "zoom_x", 0.7, 1.3),
        (EVERYTHING, "zoom_y", 0.7, 1.3),
        (EVERYTHING, "shift_x", -9.6, 9.6),
        (EVERYTHING, "shift_y", -9.6, 9.6),
    ],
    ids=str,
)
def test_range_is_filled_evenly_and_never_left(ranges: dict[str, float], part: str, low: float, high: float) -> None:
    drawn = parts(maps(4000, **ranges))[part]
    slack = 1e-4 * (high - low)
    assert low - slack <= drawn.min()
    assert drawn.max() <= high + slack
    shares = np.histogram(drawn, bins=4, range=(low - slack, high + slack))[0] / len(drawn)
    np.testing.assert_allclose(shares, 0.25, atol=0.04)  # six standard errors


@pytest.mark.parametrize(
    ("allowed", "still"),
    [
        ("rotation", ["zoom_x", "zoom_y", "mirrored", "shift_x", "shift_y"]),
        ("zoom", ["angle", "mirrored", "shift_x", "shift_y"]),
        ("shift", ["angle", "zoom_x", "zoom_y", "mirrored"]),
        ("flip", ["angle", "zoom_x", "zoom_y", "shift_x", "shift_y"]),
    ],
)
def test_one_range_leaves_the_other_parts_alone(allowed: str, still: list[str]) -> None:
    found, identity = parts(maps(100, **{allowed: EVERYTHING[allowed]})), parts(np.eye(3)[None, :2])
    for part in still:
        np.testing.assert_allclose(found[part].astype(float), float(identity[part][0]), atol=1e-5, err_msg=part)


def test_parts_are_drawn_independently() -> None:
    drawn = parts(maps(4000, **EVERYTHING))
    correlation = np.corrcoef([part.astype(float) for part in drawn.values()])
    np.testing.assert_allclose(correlation, np.eye(len(drawn)), atol=0.1)


def test_middle_stays_without_shift() -> None:
    moved = maps(500, **EVERYTHING | {"shift": 0.0}) @ [MIDDLE, MIDDLE, 1]
    np.testing.assert_allclose(moved, MIDDLE, atol=1e-5)


def test_flip_alone_gives_each_picture_or_its_exact_mirror_image(pictures: np.ndarray) -> None:
    many = np.tile(pictures, (16, 1, 1, 1))
    varied = vary(many, flip=True)
    kept = (varied == many).all((1, 2, 3))
    mirrored = (varied == many[:, :, ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6  # four standard errors


def test_shift_moves_a_ramp_by_what_the_map_says() -> None:
    across = np.broadcast_to(RAMP[:, None], (20, 48, 48, 1)).astype("float32")
    down = across.transpose(0, 2, 1, 3)
    shifts = parts(maps(20, shift=0.2))
    for ramp, axis, shift in ((across, 2, shifts["shift_x"]), (down, 1, shifts["shift_y"])):
        wanted = np.clip(RAMP + shift[:, None], 0, 47)  # beyond the edge stands the edge's value
        found = vary(ramp, shift=0.2).take(7, axis=3 - axis)[..., 0]
        np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, 3), (-5, 2), (48, 0), (0, -60)])
def test_whole_shift_moves_pixels_and_repeats_the_edge(
    right: int, down: int, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_map = np.tile(np.array([1, 0, -right, 0, 1, -down, 0, 0], "float32"), (len(pictures), 1))
    monkeypatch.setattr(augment, "transforms", lambda count, recipe, chance: one_map)
    columns, rows = (np.clip(np.arange(48) - move, 0, 47) for move in (right, down))
    assert (vary(pictures, shift=0.1) == pictures[:, rows][:, :, columns]).all()


@pytest.mark.parametrize("ranges", [{"rotation": 180.0}, {"zoom": 0.9}, {"shift": 0.9}, EVERYTHING], ids=str)
def test_pictures_are_resampled_as_scipy_does_under_the_same_maps(
    ranges: dict[str, float], pictures: np.ndarray
) -> None:
    smooth = ndimage.gaussian_filter(pictures, (0, 2, 2, 0))  # float32 coordinates matter less
    found = vary(smooth, **ranges)
    for picture, varied, ((a0, a1, a2), (b0, b1, b2)) in zip(smooth, found, maps(len(smooth), **ranges), strict=True):
        wanted = ndimage.affine_transform(picture[..., 0], [[b1, b0], [a1, a0]], [b2, a2], order=1, mode="nearest")
        np.testing.assert_allclose(varied[..., 0], wanted, atol=0.05)


@pytest.mark.parametrize("ranges", [{"flip": True}, {"rotation": 10.0}, EVERYTHING], ids=str)
def test_same_seed_same_pictures_and_another_seed_others(ranges: dict[str, float], pictures: np.ndarray) -> None:
    first, again, other = (vary(pictures, seed, **ranges) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_pictures_of_a_batch_get_different_maps_and_so_do_batches() -> None:
    chance = keras.random.SeedGenerator(1)
    batches = [keras.ops.convert_to_numpy(augment.transforms(50, recipe(**EVERYTHING), chance)) for _ in range(2)]
    assert len(np.unique(np.concatenate(batches), axis=0)) == 100


def test_global_seed_does_not_matter_to_a_seeded_generator(pictures: np.ndarray) -> None:
    varied = []
    for seed in (1, 2):
        backend.prepare(seed, "float32")
        varied.append(vary(pictures, **EVERYTHING))
    assert (varied[0] == varied[1]).all()
